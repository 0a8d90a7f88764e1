"""Verification passes what is right, and fails what is wrong even slightly."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from difftool.bundle import PRECISIONS, Bounds, read_bundle
from difftool.bundle.amend import with_files
from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
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


@pytest.fixture(scope="module")
def right(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def unclipped(right: Checkpoint) -> Program:
    """A program without clipping: random weights saturate it, and that hides small defects."""
    return ddpm(right.spec, clip=False)


def off_by(factor: float, right: Checkpoint) -> nn.Module:
    """The network with its last layer off."""
    network = copy.deepcopy(right.network)
    network.get_parameter("conv_out.weight").mul_(factor)
    return network


def test_a_bundle_passes_against_its_checkpoint(
    tiny_bundle: Path, tiny_checkpoint: Path, unclipped: Program
) -> None:
    rows: list[int] = []
    report = verify(tiny_bundle, tiny_checkpoint, on_step=lambda done, _: rows.append(done))
    result = report.result
    assert report.passed
    assert result.step_error < 1e-5
    assert result.psnr > 80
    assert rows == list(range(1, 21))
    assert result.errors.shape == (20,)
    assert verify(tiny_bundle, tiny_checkpoint, program=unclipped).result.step_error < 1e-5


def test_points_pass_too(points_bundle: Path, points_checkpoint: Path) -> None:
    assert verify(points_bundle, points_checkpoint, n=8).passed


def test_other_weights_are_not_verified(tiny_bundle: Path, points_checkpoint: Path) -> None:
    with pytest.raises(ArtefactError, match="exported from other weights"):
        verify(tiny_bundle, points_checkpoint)


@pytest.mark.parametrize("defect", ["swapped time embedding", "last layer 1 % off", "nan"])
def test_a_seeded_defect_fails(defect: str, right: Checkpoint, unclipped: Program) -> None:
    if defect == "swapped time embedding":
        settings = {**right.call.arguments, "embedding": "cos_sin"}
        network = build_network(NetworkCall("unet", settings))
        network.load_state_dict(right.network.state_dict())
        network.requires_grad_(False)
    else:
        network = off_by(float("nan") if defect == "nan" else 1.01, right)
    reference, candidate = Eager(right.network, right.spec), Eager(network, right.spec)
    result = compare(candidate, reference, unclipped, right.spec)
    assert not result.passed
    assert not result.step_error <= result.step_tolerance
    if defect == "nan":
        assert result.worst_row == 0
        assert not np.isfinite(result.errors[0])


def test_the_same_backend_twice_is_equal(right: Checkpoint) -> None:
    backend = Eager(right.network, right.spec)
    result = compare(backend, backend, ddpm(right.spec), right.spec)
    assert (result.step_error, result.psnr) == (0, float("inf"))
    assert result.passed


def test_largest_and_rms_error_of_a_row(right: Checkpoint, unclipped: Program) -> None:
    """Against a plain loop over two networks that differ."""
    reference, candidate = Eager(right.network, right.spec), Eager(off_by(1.01, right), right.spec)
    result = compare(candidate, reference, unclipped, right.spec, n=3, seed=5)
    draws = Draws(5, np.arange(3), right.spec.shape)
    exact, other = reference.batch(unclipped, 3), candidate.batch(unclipped, 3)
    exact.start(start_noise(unclipped, draws))
    for row, noise in enumerate(row_noise(unclipped, draws)):
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
    result = verify(broken, tiny_checkpoint).result
    assert (result.bad_row, result.reference_bad_row) == (row, None)
    assert np.isfinite(np.delete(result.errors, row)).all()  # the rows after it start anew
    assert not result.passed

    result = verify(broken, backend="numpy").result  # the same conditioner on both sides
    assert (result.bad_row, result.reference_bad_row) == (row, row)
    assert not result.passed


@pytest.mark.parametrize("against", ["onnxruntime-cpu", "torch"])
@pytest.mark.parametrize("backend", ["numpy", "openvino", "torch"])
def test_any_two_agree(
    backend: str, against: str, tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    if backend == against:
        backend = "onnxruntime-cpu"
    checkpoint = tiny_checkpoint if "torch" in (backend, against) else None
    program = ddim(read_bundle(tiny_bundle).spec, steps=3)
    result = verify(
        tiny_bundle, checkpoint, program=program, backend=backend, against=against
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
        (
            {"checkpoint": "run", "backend": "openvino", "against": "onnxruntime-cpu"},
            "neither openvino nor onnxruntime-cpu runs the checkpoint",
        ),
    ],
)
def test_sides_without_meaning(arguments: dict[str, Any], message: str, tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match=message):
        verify(tiny_bundle, **arguments)


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
    bundle = with_files(bundle, {}, bounds={"fp32": Bounds(step_error=1e-12, psnr=40)})
    result = verify(bundle, backend="numpy").result
    assert result.step_tolerance == 1e-12
    assert not result.passed
