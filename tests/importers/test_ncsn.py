"""ncsn and ncsnv2 files: the three networks of ncsnv2 against a plain walk, and their settings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difftool.diffusion.calls import SamplerCall
from tests.importers.conftest import Save, make_network, missing, near, read, refusal
from tests.oracles.plain_ncsnv2 import DEEPER, DEEPEST, NCSNV2, State, Variant

CONFIG = """
data: {image_size: 16, channels: 3, logit_transform: false, rescaled: false}
model:
  sigma_begin: 50
  sigma_end: 0.01
  num_classes: 12
  normalization: InstanceNorm++
  nonlinearity: elu
sampling: {step_lr: 6.2e-6, n_steps_each: 5, denoise: true}
fast_fid: {step_lr: 1}
"""


def listed(state: State, ema: State | None = None) -> list[Any]:
    """A checkpoint as the training script saves it."""
    prefixed = {f"module.{name}": value for name, value in state.items()}
    prefixed["module.sigmas"] = torch.from_numpy(np.geomspace(50, 0.01, 12)).float()
    return [prefixed, {"state": {}}, 3, 1234, *([] if ema is None else [ema])]


def test_the_plain_walk_is_the_authors_network(shared: Path) -> None:
    folder = shared / "golden/ncsn_v2_cifar32"
    state = torch.load(folder / "checkpoint.pth", weights_only=True)[4]
    with np.load(folder / "io.npz", allow_pickle=False) as arrays:
        x, score = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["score"])
        sigma = torch.from_numpy(arrays["sigmas"][arrays["labels"]]).reshape(-1, 1, 1, 1)
    assert near(NCSNV2.evaluate(state, x) / sigma, score)


@torch.no_grad()
@pytest.mark.parametrize(
    "variant", [NCSNV2, DEEPER, DEEPEST], ids=["NCSNv2", "NCSNv2Deeper", "NCSNv2Deepest"]
)
def test_the_averaged_network_computes_what_the_file_means(variant: Variant, save: Save) -> None:
    state = variant.random_state()
    imported = read(save(listed(variant.random_state(seed=1), state), CONFIG))
    x = torch.rand(2, 3, 16, 16)
    assert near(make_network(imported)(x, torch.zeros(2, 0)), variant.evaluate(state, x))
    assert (imported.weights, imported.step) == ("ema", 1234)


def test_without_an_average_the_weights_are_taken(save: Save) -> None:
    state = NCSNV2.random_state()
    imported = read(save(listed(state), CONFIG))
    assert imported.weights == "raw"
    assert torch.equal(imported.tensors["net.conv_in.weight"], state["begin_conv.weight"])


def test_the_published_sampler_is_the_default_program(save: Save) -> None:
    imported = read(save(listed(NCSNV2.random_state()), CONFIG))
    arguments = {"steps": 60, "step_size": 6.2e-6, "convention": "image", "denoise": True}
    assert imported.sampler == SamplerCall("annealed_langevin", arguments)
    assert imported.spec.data_range == (0, 1)
    assert imported.chosen.assumed == ("model.sigma_dist", "model.spec_norm")


def test_rescaled_data_lie_around_zero(save: Save) -> None:
    config = CONFIG.replace("rescaled: false", "rescaled: true")
    imported = read(save(listed(NCSNV2.random_state()), config))
    assert imported.spec.data_range == (-1, 1)
    assert imported.network.arguments["centered"] is True


def test_levels_are_taken_from_the_file_if_nothing_else_says_them(save: Save) -> None:
    path = save(listed(NCSNV2.random_state()))
    assert missing(path) == ["data.image_size", "sampling.step_lr"]
    imported = read(path, **{"data.image_size": 16, "sampling.step_lr": 1e-5})
    assert str(imported.spec.schedule) == "geometric(levels=12, sigma_min=0.01, sigma_max=50)"


def test_evenly_spaced_levels(save: Save) -> None:
    content = listed(NCSNV2.random_state())
    content[0]["module.sigmas"] = torch.linspace(50, 0.01, 12)
    config = CONFIG.replace("  sigma_begin", "  sigma_dist: uniform\n  sigma_begin")
    sigma = read(save(content, config)).spec.schedule.sigma
    assert np.allclose(sigma, np.linspace(0.01, 50, 12), rtol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sigma_begin: 50", "sigma_begin: 90", "own noise levels are not geometric"),
        ("num_classes: 12", "num_classes: 10", "own noise levels are not geometric"),
        ("elu", "relu", "model.nonlinearity is 'relu'"),
        ("InstanceNorm++", "BatchNorm", "model.normalization is 'BatchNorm'"),
        ("logit_transform: false", "logit_transform: true", "data.logit_transform is True"),
        ("image_size: 16", "image_size: big", "data.image_size is 'big'"),
    ],
)
def test_a_configuration_of_something_else(old: str, new: str, message: str, save: Save) -> None:
    path = save(listed(NCSNV2.random_state()), CONFIG.replace(old, new))
    assert message in refusal(path)


def test_ncsn_asks_for_its_levels(shared: Path, save: Save) -> None:
    content = torch.load(shared / "golden/ncsn_v1_mnist28/checkpoint.pth", weights_only=True)
    path = save(content)
    assert missing(path, image_size=28) == ["model.sigma_begin", "model.sigma_end"]
    imported = read(path, image_size=28, sigma_begin=1, sigma_end=0.01)
    assert imported.spec.shape == (1, 28, 28)
    assert imported.network.arguments == {"in_channels": 1, "levels": 10, "channels": 8}
    assert imported.sampler.arguments["denoise"] is False
