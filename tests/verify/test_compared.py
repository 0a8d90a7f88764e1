"""Verification passes what is right, and fails what is wrong even slightly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difftool.bundle import PRECISIONS, Bounds, read_bundle
from difftool.bundle.amend import with_files
from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.columns import Column
from difftool.diffusion.samplers import ddim, ddpm
from difftool.errors import ArtefactError, UsageError
from difftool.networks import build_network
from difftool.networks.trained import Checkpoint, load_checkpoint
from difftool.runtime.comparison import BOUNDS, compare
from difftool.runtime.draws import Draws, row_noise, start_noise
from difftool.verify import verify
from difftool.verify.eager import Eager
from difftool.verify.sides import Side, open_sides, widest_bounds
from tests.verify.defects import copied, with_nan_at


def test_a_bundle_passes_against_its_checkpoint(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    rows: list[int] = []
    report = verify(tiny_bundle, tiny_checkpoint, on_step=lambda done, _: rows.append(done))
    result = report.result
    assert result.passed
    assert result.step_error < 1e-5
    assert result.psnr > 80
    assert rows == list(range(1, 21))
    assert result.errors.shape == (20,)


def test_every_row_passes_without_clipping(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    program = ddpm(load_checkpoint(tiny_checkpoint).spec, clip=False)
    assert verify(tiny_bundle, tiny_checkpoint, program=program).result.step_error < 1e-5


def test_points_pass_too(points_bundle: Path, points_checkpoint: Path) -> None:
    assert verify(points_bundle, points_checkpoint, n=8).passed


def test_other_weights_are_not_verified(tiny_bundle: Path, points_checkpoint: Path) -> None:
    with pytest.raises(ArtefactError, match="exported from other weights"):
        verify(tiny_bundle, points_checkpoint)


@pytest.fixture
def right(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.mark.parametrize("defect", ["swapped time embedding", "last layer 1 % off", "nan"])
def test_a_seeded_defect_fails(defect: str, right: Checkpoint, tiny_checkpoint: Path) -> None:
    network = load_checkpoint(tiny_checkpoint).network
    if defect == "swapped time embedding":
        settings = {**right.call.arguments, "embedding": "cos_sin"}
        swapped = build_network(NetworkCall("unet", settings))
        swapped.load_state_dict(network.state_dict())
        network = swapped.eval().requires_grad_(False)
    else:
        weight = network.get_parameter("conv_out.weight")
        weight *= float("nan") if defect == "nan" else 1.01
    # Without clipping: random weights saturate it, and a saturated D hides small defects.
    program = ddpm(right.spec, clip=False)
    reference, candidate = Eager(right.network, right.spec), Eager(network, right.spec)
    result = compare(candidate, reference, program, right.spec)
    assert not result.passed
    assert not result.step_error <= result.step_tolerance
    if defect == "nan":
        assert result.worst_row == 0
        assert not np.isfinite(result.errors[0])


def test_the_same_backend_twice_is_equal(right: Checkpoint) -> None:
    backend = Eager(right.network, right.spec)
    with torch.inference_mode():
        result = compare(backend, backend, ddpm(right.spec), right.spec)
    assert result.step_error == 0
    assert result.psnr == float("inf")
    assert result.passed


def test_largest_and_rms_error_of_a_row(right: Checkpoint, tiny_checkpoint: Path) -> None:
    """Against a plain loop over two networks that differ."""
    network = load_checkpoint(tiny_checkpoint).network
    network.get_parameter("conv_out.weight").mul_(1.01)
    program = ddpm(right.spec, clip=False)
    reference, candidate = Eager(right.network, right.spec), Eager(network, right.spec)
    result = compare(candidate, reference, program, right.spec, n=3, seed=5)
    draws = Draws(5, np.arange(3), right.spec.shape)
    exact, other = reference.batch(program, 3), candidate.batch(program, 3)
    exact.start(start_noise(program, draws))
    for row, noise in enumerate(row_noise(program, draws)):
        other.start(exact.x, row=row)
        exact.step(noise)
        other.step(noise)
        difference, scale = np.abs(other.x - exact.x), np.abs(exact.x).max()
        assert result.errors[row] == pytest.approx(difference.max() / scale)
        assert result.rms[row] == pytest.approx(np.sqrt((difference**2).mean()) / scale, rel=1e-4)


def test_the_first_row_that_is_nan(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    program = read_bundle(tiny_bundle).default_program()
    row = 11
    cond = float(program.conds[int(program.table[row, Column.COND])])
    broken = with_nan_at(tiny_bundle, tmp_path / "broken", cond)
    result = verify(broken.path, tiny_checkpoint).result
    assert (result.bad_row, result.reference_bad_row) == (row, None)
    assert np.isfinite(np.delete(result.errors, row)).all()  # the rows after it start anew
    assert not result.passed

    result = verify(broken.path, backend="numpy").result  # the same conditioner on both sides
    assert (result.bad_row, result.reference_bad_row) == (row, row)
    assert not result.passed


@pytest.mark.parametrize("backend", ["numpy", "openvino", "torch"])
def test_any_two_agree(backend: str, tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    program = ddim(load_checkpoint(tiny_checkpoint).spec, steps=3)
    for against, checkpoint in (("onnxruntime-cpu", None), ("torch", tiny_checkpoint)):
        if against == backend:
            continue
        given = tiny_checkpoint if backend == "torch" else checkpoint
        result = verify(
            tiny_bundle, given, program=program, backend=backend, against=against
        ).result
        assert (result.candidate, result.reference) == (backend, against)
        assert result.passed
        assert 0 < result.step_error < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to compare: both sides are onnxruntime-cpu fp32"),
        ({"backend": "numpy", "against": "numpy"}, "both sides are numpy fp32"),
        ({"backend": "torch"}, "torch needs the checkpoint"),
        ({"backend": "abacus"}, "unknown backend 'abacus'"),
        ({"precision": "fp7"}, "unknown precision 'fp7'"),
        ({"backend": "numpy", "n": 0}, "0 samples"),
    ],
)
def test_sides_without_meaning(arguments: dict[str, Any], message: str, tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match=message):
        verify(tiny_bundle, **arguments)


def test_a_checkpoint_that_nothing_runs(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    neither = "neither openvino nor onnxruntime-cpu runs the checkpoint"
    with pytest.raises(UsageError, match=neither):
        verify(tiny_bundle, tiny_checkpoint, backend="openvino", against="onnxruntime-cpu")


def test_bounds_are_the_precisions_own(tiny_bundle: Path, tmp_path: Path) -> None:
    assert {*PRECISIONS} <= BOUNDS.keys()
    bundle = copied(tiny_bundle, tmp_path / "copy", {})
    sides = open_sides(bundle, backend="numpy")
    coarse = Side(sides[0].backend, "int8")
    assert widest_bounds(bundle, *sides) == Bounds(step_error=1e-4, psnr=40)
    assert widest_bounds(bundle, coarse, sides[1]).step_error == 0.1
    assert widest_bounds(bundle, sides[1], coarse).step_error == 0.1
    own = Bounds(step_error=0.02, psnr=31)
    assert widest_bounds(with_files(bundle, {}, bounds={"int8": own}), coarse) == own


def test_a_bundle_can_ask_for_more_than_it_keeps(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = copied(tiny_bundle, tmp_path / "copy", {})
    with_files(bundle, {}, bounds={"fp32": Bounds(step_error=1e-12, psnr=40)})
    result = verify(bundle.path, backend="numpy").result
    assert result.step_tolerance == 1e-12
    assert not result.passed
