"""Verification passes what is right, and fails what is wrong even slightly."""

from pathlib import Path

import numpy as np
import pytest
import torch

from difftool.diffusion.samplers import ddpm
from difftool.errors import ArtefactError
from difftool.export.eager import Eager
from difftool.export.verify import compare, verify_bundle
from difftool.train.checkpoint import load_checkpoint
from difftool.train.networks import build_network


def test_a_bundle_passes_against_its_checkpoint(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    rows: list[int] = []
    result = verify_bundle(tiny_bundle, tiny_checkpoint, on_row=lambda done, _: rows.append(done))
    assert result.passed
    assert result.step_error < 1e-5
    assert result.psnr > 80
    assert rows == list(range(1, 21))
    assert result.errors.shape == (20,)


def test_every_row_passes_where_clipping_hides_nothing(
    tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    program = ddpm(load_checkpoint(tiny_checkpoint).spec, clip=False)
    assert verify_bundle(tiny_bundle, tiny_checkpoint, program=program).step_error < 1e-5


def test_points_pass_too(points_bundle: Path, points_checkpoint: Path) -> None:
    assert verify_bundle(points_bundle, points_checkpoint, n=8).passed


def test_other_weights_are_not_verified(tiny_bundle: Path, points_checkpoint: Path) -> None:
    with pytest.raises(ArtefactError, match="exported from other weights"):
        verify_bundle(tiny_bundle, points_checkpoint)


@pytest.mark.parametrize("defect", ["swapped time embedding", "last layer 1 % off", "nan"])
def test_a_seeded_defect_fails(defect: str, tiny_checkpoint: Path) -> None:
    right = load_checkpoint(tiny_checkpoint)
    network = load_checkpoint(tiny_checkpoint).network
    if defect == "swapped time embedding":
        settings = {**right.config["network"]["arguments"], "embedding": "cos_sin"}
        swapped = build_network("unet", settings)
        swapped.load_state_dict(network.state_dict())
        network = swapped.eval().requires_grad_(False)
    else:
        weight = network.get_parameter("conv_out.weight")
        weight *= float("nan") if defect == "nan" else 1.01
    # Without clipping: random weights saturate it, and a saturated D hides small defects.
    program = ddpm(right.spec, clip=False)
    teacher, student = Eager(right.network, right.spec), Eager(network, right.spec)
    result = compare(student, teacher, program, right.spec)
    assert not result.passed
    assert not result.step_error <= result.step_tolerance
    if defect == "nan":
        assert result.worst_row == 0
        assert not np.isfinite(result.errors[0])


def test_the_same_backend_twice_is_equal(tiny_checkpoint: Path) -> None:
    loaded = load_checkpoint(tiny_checkpoint)
    backend = Eager(loaded.network, loaded.spec)
    with torch.inference_mode():
        result = compare(backend, backend, ddpm(loaded.spec), loaded.spec)
    assert result.step_error == 0
    assert result.psnr == float("inf")
