"""The U-Net with linear attention: size, attention and bad arguments."""

from typing import Any

import pytest
import torch

from difftool.diffusion.calls import NetworkCall
from difftool.errors import UsageError
from difftool.networks import build_network, num_parameters
from difftool.networks.linear_attention_unet import (
    FullAttention,
    LinearAttention,
    LinearAttentionUNet,
)

SMALL = {"in_channels": 1, "out_channels": 1, "channels": 4, "multipliers": [1, 2, 3]}


def test_the_defaults_have_the_library_s_size() -> None:
    """That of Unet(dim=64) in denoising-diffusion-pytorch 2."""
    with torch.device("meta"):
        network = LinearAttentionUNet(in_channels=3, out_channels=3)
    assert num_parameters(network) == 35_711_491


def test_attention_is_full_where_it_is_said_and_in_the_middle() -> None:
    network = build_network(
        NetworkCall("linear_attention_unet", SMALL | {"full": [1], "heads": [1, 2, 3]})
    )
    linear, full = LinearAttention, FullAttention
    rows = [*network.down, network.middle, *network.up]
    found = [m for row in rows for m in row if isinstance(m, linear | full)]
    kinds = [type(module) for module in found]
    assert kinds == [linear, full, linear, full, linear, full, linear]
    assert [module.heads for module in found] == [1, 2, 3, 3, 3, 2, 1]


@torch.no_grad()
def test_linear_attention_is_two_softmaxes_and_two_sums() -> None:
    """Written out: keys are weighed over all pixels, queries over the channels of a head."""
    torch.manual_seed(0)
    attention = LinearAttention(4, heads=2, head_channels=3, memory=2)
    x = torch.randn(1, 4, 2, 2)
    q, k, v = (part[0] for part in attention.split(x))
    expected = torch.zeros(2, 3, 4)
    for head in range(2):
        keys = torch.cat((attention.memory[0, head], k[head]), dim=1)
        values = torch.cat((attention.memory[1, head], v[head]), dim=1)
        weights = keys.exp() / keys.exp().sum(dim=1, keepdim=True)  # of each channel, over places
        for pixel in range(4):
            share = q[head, :, pixel].exp() / q[head, :, pixel].exp().sum() / 3**0.5
            for channel in range(3):
                expected[head, :, pixel] += share[channel] * (values * weights[channel]).sum(dim=1)
    expected = x + attention.out(expected.reshape(1, 6, 2, 2))
    assert torch.allclose(attention(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 3}, "channels is 3"),
        ({"channels": 7}, "channels is 7.*even"),
        ({"multipliers": []}, "the number of multipliers is 0"),
        ({"multipliers": [1, 0, 1]}, "a width is 0"),
        ({"full": [3]}, "full names level 3.*0 .full resolution. to 2"),
        ({"heads": [1, 2]}, r"heads is \[1, 2\] for 3 levels"),
        ({"head_channels": 0}, "head_channels is 0"),
        ({"memory": -1}, "memory is -1"),
        ({"groups": 3}, "groups=3 does not divide a width of 4"),
        ({"groups": 0}, "groups is 0"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_network(NetworkCall("linear_attention_unet", SMALL | change))
