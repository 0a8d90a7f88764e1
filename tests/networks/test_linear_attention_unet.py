"""The U-Net with linear attention: size and attention."""

import torch

from difftool.diffusion.calls import NetworkCall
from difftool.networks import build_network, num_parameters
from difftool.networks.linear_attention_unet import (
    FullAttention,
    LinearAttention,
    LinearAttentionUNet,
)
from tests.networks.test_networks import BASES


def test_the_defaults_have_the_library_s_size() -> None:
    """As Unet(dim=64) of denoising-diffusion-pytorch 2."""
    with torch.device("meta"):
        network = LinearAttentionUNet(in_channels=3, out_channels=3)
    assert num_parameters(network) == 35_711_491


def test_attention_is_full_if_it_is_said_and_in_the_middle() -> None:
    kind = "linear_attention_unet"
    network = build_network(NetworkCall(kind, BASES[kind] | {"full": [1], "heads": [1, 2, 3]}))
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
