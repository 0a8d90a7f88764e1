"""improved- and guided-diffusion files against a plain walk over their state dict."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difftool.diffusion.calls import SamplerCall
from difftool.errors import ArtefactError, UsageError
from tests.importers.conftest import Save, missing, near, read, run_network
from tests.oracles.plain_openai import Shape

SAID = {"diffusion_steps": 1000, "noise_schedule": "linear", "image_size": 8}


def test_the_plain_walk_is_the_authors_network(shared: Path) -> None:
    folder = shared / "golden/improved_diffusion_learned_sigma"
    state = torch.load(folder / "ema_0.9999_000100.pt", weights_only=True)
    with np.load(folder / "io.npz", allow_pickle=False) as arrays:
        x, t, expected = (torch.from_numpy(arrays[name]) for name in ("x", "t_original", "output"))
    shape = Shape(widths=(32, 64, 64, 64), updown=False)
    assert near(shape.evaluate(state, x, t / 4, head_channels=32), expected)


NETWORKS: dict[str, tuple[Shape, dict[str, Any]]] = {
    "guided-diffusion, the old order": (
        Shape(), {"num_head_channels": 16, "use_new_attention_order": False}
    ),
    "its 64x64, with classes and the new order": (
        Shape(classes=5, blocks=2), {"num_head_channels": 16, "use_new_attention_order": True}
    ),
    "its 512x512, whose first level is narrower than its embedding": (
        Shape(channels=64, widths=(32, 64, 64), attention=(1, 2)),
        {"num_head_channels": 32, "use_new_attention_order": False},
    ),
    "improved-diffusion's LSUN, without learned variance": (
        Shape(updown=False, scale_shift=False, outputs=3, blocks=2), {"num_heads": 1}
    ),
    "improved-diffusion with classes": (
        Shape(updown=False, attention=(0, 1), classes=3), {"num_head_channels": 8}
    ),
}  # fmt: skip


@pytest.mark.parametrize(("shape", "flags"), NETWORKS.values(), ids=NETWORKS)
def test_the_network_is_that_of_the_file(shape: Shape, flags: dict[str, Any], save: Save) -> None:
    state = shape.random_state()
    imported = read(save(state), **SAID, **flags)
    x, timesteps = torch.randn(2, 3, 8, 8), torch.tensor([0.0, 870.0])
    labels = [torch.tensor([2, 0])] if shape.classes else []
    expected = shape.evaluate(
        state,
        x,
        timesteps,
        *labels,
        head_channels=flags.get("num_head_channels", 64),
        new_order=flags.get("use_new_attention_order", False),
    )
    assert near(run_network(imported, x, timesteps, *labels), expected)
    assert imported.spec.classes == shape.classes
    assert imported.spec.learned_variance is (shape.outputs == 6)


def test_all_that_must_be_said_is_asked_for_at_once(save: Save) -> None:
    assert missing(save(Shape(widths=(32, 32, 64)).random_state())) == [
        "image_size",
        "num_heads",
        "use_new_attention_order",
        "diffusion_steps",
        "noise_schedule",
        "rescale_timesteps",
    ]


@pytest.mark.parametrize(
    ("widths", "size"),
    [((32, 64, 64, 64), 32), ((32, 64, 96, 128), 64), ((32, 32, 64, 64, 128, 128), 256)],
)
def test_the_widths_tell_the_image_size(widths: tuple[int, ...], size: int, save: Save) -> None:
    path = save(Shape(widths=widths, updown=False).random_state())
    assert "image_size" not in missing(path)
    if size == 32:
        spec = read(path, num_heads=1, diffusion_steps=1000, noise_schedule="linear").spec
        assert spec.shape == (3, size, size)


LEARNED = {"variance": "learned"}


@pytest.mark.parametrize(
    ("outputs", "flags", "parameterization", "sampler", "arguments"),
    [
        (6, {}, "epsilon", "ddpm", LEARNED),
        (6, {"timestep_respacing": "250"}, "epsilon", "ddpm", {"steps": 250, **LEARNED}),
        (
            6, {"timestep_respacing": "ddim25"}, "epsilon", "ddim",
            {"steps": 25, "spacing": "leading"},
        ),
        (3, {}, "epsilon", "ddpm", {"variance": "large"}),
        (3, {"sigma_small": True, "predict_xstart": True}, "x0", "ddpm", {"variance": "small"}),
    ],
)  # fmt: skip
def test_the_default_program(
    outputs: int,
    flags: dict[str, Any],
    parameterization: str,
    sampler: str,
    arguments: dict[str, Any],
    save: Save,
) -> None:
    path = save(Shape(updown=False, outputs=outputs).random_state())
    imported = read(path, **SAID, num_heads=1, **flags)
    assert imported.spec.parameterization == parameterization
    assert imported.sampler == SamplerCall(sampler, arguments)


def test_timesteps_are_rescaled_to_a_thousand(save: Save) -> None:
    path = save(Shape(updown=False).random_state())
    said = {**SAID, "diffusion_steps": 4000, "num_heads": 1}
    rescaled, plain = (read(path, **said, rescale_timesteps=value).spec for value in (True, False))
    assert rescaled.conds(3999) == 3999 * 1000 / 4000
    assert plain.conds(3999) == 3999
    betas = 1 - rescaled.schedule.alpha_bar[1:] / rescaled.schedule.alpha_bar[:-1]
    assert betas[-1] == pytest.approx(0.02 / 4)


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"num_head": 4}, UsageError, "no setting 'num_head'.*num_heads"),
        ({"num_heads": "few"}, UsageError, "num_heads is 'few'"),
        ({"num_heads": 1, "noise_schedule": "sqrt"}, UsageError, "'sqrt'.*linear, cosine"),
        ({"num_heads": 1, "num_heads_upsample": 2}, UsageError, "num_heads_upsample is 2"),
        ({"num_heads": 1, "timestep_respacing": "10,10"}, UsageError, "timestep_respacing"),
        ({"num_heads": 1, "image_size": 9}, ArtefactError, "cannot take samples of"),
        ({"num_heads": 3}, ArtefactError, "do not split into equal attention heads"),
        ({"num_heads": 1, "timestep_respacing": "9" * 5000}, UsageError, "timestep_respacing"),
    ],
)
def test_flags_without_a_meaning(
    flags: dict[str, Any], error: type[Exception], message: str, save: Save
) -> None:
    with pytest.raises(error, match=message):
        read(save(Shape(updown=False).random_state()), **{**SAID, **flags})


def test_a_network_that_enlarges_pictures_is_refused(save: Save) -> None:
    state = Shape().random_state()
    state["input_blocks.0.0.weight"] = torch.zeros(32, 6, 3, 3)
    with pytest.raises(ArtefactError, match="it enlarges pictures"):
        read(save(state), **SAID)


def test_the_image_size_of_the_flags_comes_first(save: Save) -> None:
    path = save(Shape(updown=False).random_state(), "image_size: 16\nnum_heads: 2\n")
    assert read(path, **SAID).spec.shape == (3, 8, 8)
    assert read(path, diffusion_steps=1000, noise_schedule="linear").spec.shape == (3, 16, 16)
