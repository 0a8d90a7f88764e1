"""The networks compute what the original authors' code computed, from the original weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from difftool.train.networks.unet import UNet
from tests.train.networks import golden
from tests.train.networks.golden import recorded

TOLERANCE = 2e-4  # of the largest output, for float32 sums in another order


@torch.no_grad()
def evaluate(network: nn.Module, x: Tensor, cond: Tensor) -> Tensor:
    return network(x, network.condition(cond.float()))


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_ncsn_v1(shared: Path) -> None:
    folder = shared / "golden/ncsn_v1_mnist28"
    io = recorded(folder)
    assert_close(evaluate(golden.imported(folder), io["x"], io["labels"]), io["score"])


def test_ncsn_v2_gives_sigma_times_score(shared: Path) -> None:
    folder = shared / "golden/ncsn_v2_cifar32"
    io = recorded(folder)
    sigma = io["sigmas"][io["labels"]].float()[:, None, None, None]
    output = evaluate(golden.imported(folder), io["x"], io["labels"])
    assert_close(output / sigma, io["score"])


def test_ddpm(shared: Path) -> None:
    folder = shared / "golden/ddpm_pesser16"
    io = recorded(folder)
    assert_close(evaluate(golden.imported(folder), io["x"], io["t"]), io["eps"])


def test_improved_diffusion(shared: Path) -> None:
    folder = shared / "golden/improved_diffusion_learned_sigma"
    io = recorded(folder)
    timesteps = io["t_original"] * 1000 / 4000  # rescale_timesteps
    network = golden.imported(folder)
    assert_close(evaluate(network, io["x"], timesteps), io["output"])


def test_residual_resampling_and_head_channels_against_diffusers() -> None:
    """No recorded network has them, so this one runs beside diffusers' own."""
    torch.manual_seed(0)
    reference = pytest.importorskip("diffusers").UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        upsample_type="resnet",
        attention_head_dim=8,
        norm_num_groups=8,
        attn_norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
    )
    network = UNet(
        in_channels=1,
        out_channels=2,
        channels=16,
        multipliers=(1, 2),
        blocks=1,
        attention=(1,),
        head_channels=8,
        groups=8,
        norm_eps=1e-5,
        embedding="cos_sin",
        scale_shift=True,
        resample="block",
    )
    golden.diffusers(reference.state_dict(), network, blocks=1)
    x, timesteps = torch.randn(3, 1, 8, 8), torch.tensor([0, 10, 999])
    with torch.no_grad():
        expected = reference.eval()(x, timesteps).sample
    assert_close(evaluate(network, x, timesteps), expected)


def test_labels_against_diffusers() -> None:
    torch.manual_seed(0)
    reference = pytest.importorskip("diffusers").UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        attention_head_dim=16,
        norm_num_groups=8,
        attn_norm_num_groups=8,
        num_class_embeds=4,
    )
    network = UNet(
        in_channels=1,
        out_channels=1,
        channels=16,
        multipliers=(1,),
        blocks=1,
        attention=(),
        groups=8,
        norm_eps=1e-5,
        embedding="cos_sin",
        classes=3,
        null_label=True,
    )
    golden.diffusers(reference.state_dict(), network, blocks=1)
    x, timesteps, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 10, 10, 999]), torch.arange(4)
    with torch.no_grad():
        expected = reference.eval()(x, timesteps, class_labels=labels).sample
        actual = network(x, network.condition(timesteps.float(), labels))
        other = network(x, network.condition(timesteps.float(), labels.flip(0)))
    assert_close(actual, expected)
    assert (other - expected).abs().max() > 0.01
