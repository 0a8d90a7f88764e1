"""The DDPM U-Net: sizes and initialization."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from difftool.diffusion.calls import NetworkCall
from difftool.networks import build_network, num_parameters
from difftool.networks.unet import UNet
from difftool.networks.unet_layers import SelfAttention, SinusoidalEmbedding
from tests.networks.test_networks import BASES

MNIST = BASES["unet"]


def count_parameters(**arguments: Any) -> int:
    with torch.device("meta"):
        return num_parameters(UNet(**arguments))


def test_cifar10_network_has_the_published_size() -> None:
    """35.7 M in Ho et al. 2020, appendix B."""
    assert count_parameters(in_channels=3, out_channels=3) == 35_746_307


def test_guided_diffusion_256_network_has_the_published_size() -> None:
    """554 M in Dhariwal & Nichol 2021, table 4, with 1000 classes."""
    size = count_parameters(
        in_channels=3,
        out_channels=6,
        channels=256,
        multipliers=(1, 1, 2, 2, 4, 4),
        attention=(3, 4, 5),
        head_channels=64,
        scale_shift=True,
        resample="block",
        classes=1000,
    )
    assert round(size / 1e6) == 554


@torch.no_grad()
def test_starts_at_zero() -> None:
    network = build_network(NetworkCall("unet", MNIST))
    x = torch.randn(2, 1, 28, 28)
    output = network(x, network.condition(torch.tensor([0.0, 999.0])))
    assert torch.equal(output, torch.zeros_like(x))


def test_fused_layers_start_as_if_apart() -> None:
    """Glorot's bound depends on the shape, so each part of a fused layer has its own."""
    torch.manual_seed(0)
    network = UNet(in_channels=1, out_channels=1, channels=32, multipliers=(1,), attention=())
    _, attention, _ = network.middle
    for part in attention.qkv.weight.chunk(3):
        assert float(part.detach().abs().max()) == pytest.approx(math.sqrt(6 / 64), rel=0.02)
    for part in network.projections.weight.split(network.projection_sizes):
        assert float(part.detach().abs().max()) == pytest.approx(math.sqrt(6 / 160), rel=0.02)


def test_residual_blocks_in_running_order() -> None:
    network = build_network(NetworkCall("unet", MNIST))
    ran: list[nn.Module] = []
    for block in network.residual_blocks().values():
        block.register_forward_pre_hook(lambda module, inputs: ran.append(module))
    network(torch.zeros(1, 1, 28, 28), network.condition(torch.zeros(1)))
    assert ran == list(network.residual_blocks().values())


@torch.no_grad()
def test_conditioning_is_one_projection_per_block() -> None:
    network = build_network(NetworkCall("unet", MNIST))
    assert network.condition(torch.zeros(5)).shape == (5, sum(network.projection_sizes))
    assert network.projection_sizes == [8, 16, 16] + [16, 16] + [16] * 4 + [8] * 2


@pytest.mark.parametrize(("kind", "lowest"), [("sin_cos", 1e-4), ("cos_sin", 1e-3)])
def test_embedding_frequencies(kind: str, lowest: float) -> None:
    """From 1 down to 1/10000, which "cos_sin" stops one ratio short of."""
    waves = SinusoidalEmbedding(8 if kind == "cos_sin" else 10, kind)(torch.tensor([0.5]))[0]
    first, second = waves.chunk(2)
    sines, cosines = (first, second) if kind == "sin_cos" else (second, first)
    angles = torch.atan2(sines, cosines) / 0.5
    assert float(angles[0]) == pytest.approx(1)
    assert float(angles[-1]) == pytest.approx(lowest)


def test_switches_of_the_attentions_and_widths() -> None:
    switches = {"attention": [0], "up_attention": [1], "middle_groups": 0}
    network = build_network(NetworkCall("unet", MNIST | switches | {"multipliers": [1, 1.5, 2]}))
    attentions = [
        name for name, module in network.named_modules() if isinstance(module, SelfAttention)
    ]
    assert attentions == ["down.0.1", "middle.1", "up.2.1", "up.3.1"]
    assert isinstance(network.middle[1].norm, nn.Identity)
    assert network.projection_sizes[:3] == [8, 12, 16]
