"""The networks compute what the original authors' code computed, from the original weights."""

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.networks import golden
from tests.networks.golden import recorded

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
