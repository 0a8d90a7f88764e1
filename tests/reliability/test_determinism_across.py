"""D3 and D4: every backend computes the same model; a row at a time, and over a thousand."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from difftool.bundle import CONDITIONER, Bundle, read_bundle
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import (
    annealed_langevin,
    ddim,
    ddpm,
    dpmpp_2m,
    heun,
    plms,
    predictor_corrector,
)
from difftool.runtime.comparison import compare
from difftool.runtime.draws import Draws
from difftool.runtime.protocols import Backend
from difftool.runtime.shipped import find_bundle
from tests.reliability.backends import NAMES, Floats, MakeDraws, final, opened
from tests.reliability.criteria import Cases
from tests.verify.defects import copied

STEP_ERROR = 1e-4
PSNR = 40.0
SHIPPED = ("ddpm-mnist", "ncsn-mnist")
EXACT = "onnxruntime-cpu"


@dataclass(frozen=True)
class Pair:
    """A backend and its reference on one program of a bundle."""

    bundle: Bundle
    candidate: Backend
    reference: Backend
    program: Program

    def __repr__(self) -> str:
        return f"{self.candidate.name} after {self.reference.name}: {self.program.name}"


def make_programs(bundle: Bundle) -> list[Program]:
    """Return short ones of several families, with and without noise, of little and much history."""
    spec = bundle.spec
    if spec.schedule.alpha.min() == 1:
        langevin = annealed_langevin(spec, steps=2 * len(spec.schedule), step_size=2e-5)
        return [langevin, predictor_corrector(spec, steps=8, corrections=1)]
    programs = [ddpm(spec, steps=8), dpmpp_2m(spec, steps=8)]
    return [*programs, ddim(spec, steps=8, eta=0.5), heun(spec, steps=8), plms(spec, steps=8)]


def same_rows(pair: Pair) -> float:
    """Check D3: from the reference's state and with its noise, a row ends as the reference's does.

    Return how far from there, as part of the largest number.
    """
    spec = pair.bundle.spec
    errors = compare(pair.candidate, pair.reference, pair.program, spec, n=1, seed=5).errors
    worst = float(errors.max()) if np.isfinite(errors).all() else np.inf
    assert worst <= STEP_ERROR, f"{worst:.1e} of the scale at row {int(errors.argmax())}"
    return worst


@pytest.mark.criterion("D3")
def test_rows(
    scripted: Callable[[str], Bundle], cases: Cases, nightly: bool, note: Callable[[str], None]
) -> None:
    pairs = []
    for bundle in map(scripted, SHIPPED if nightly else SHIPPED[:1]):
        short = make_programs(bundle)[: None if nightly else 2]
        backends = {name: opened(bundle, name) for name in NAMES}
        for candidate, backend in backends.items():
            for reference in NAMES if nightly else (EXACT,):
                # Node by node numpy takes a hundred times as long.
                programs = short[:1] if "numpy" in (candidate, reference) and not nightly else short
                if candidate != reference:
                    pairs += [Pair(bundle, backend, backends[reference], p) for p in programs]
    worst = max(cases.run(same_rows, pairs))
    note(f"D3: a row ends within {worst:.1e} of the largest number")


@pytest.mark.seeded("D3")
def test_swapped_halves_of_the_time_embedding_are_seen(tmp_path: Path) -> None:
    bundle = read_bundle(find_bundle("ddpm-mnist"))
    model = onnx.load(bundle.file(CONDITIONER))
    (halves,) = (node for node in model.graph.node if node.op_type == "Concat")
    sine, cosine = halves.input
    halves.input[:] = [cosine, sine]
    swapped = copied(bundle.path, tmp_path / "swapped", {CONDITIONER: model.SerializeToString()})
    reference, program = opened(bundle, EXACT), ddpm(bundle.spec, steps=3)
    same_rows(Pair(bundle, opened(bundle, EXACT), reference, program))
    with pytest.raises(AssertionError, match="of the scale at row"):
        same_rows(Pair(bundle, opened(swapped, EXACT), reference, program))


def same_samples(pair: Pair, draws: MakeDraws = Draws) -> float:
    """Check D4: each runs on its own, with the noise that it draws itself. Return the PSNR."""
    spec = pair.bundle.spec
    expected = final(pair.reference, spec, pair.program, 1, [3])
    found = final(pair.candidate, spec, pair.program, 1, [3], draws)
    low, high = spec.data_range or (0.0, 1.0)
    error = float(np.mean((found.astype(np.float64) - expected) ** 2))
    psnr = float("inf") if error == 0 else 10 * math.log10((high - low) ** 2 / error)
    assert psnr >= PSNR, f"{psnr:.1f} dB"
    return psnr


@pytest.mark.criterion("D4")
def test_a_thousand_steps(
    scripted: Callable[[str], Bundle], cases: Cases, nightly: bool, note: Callable[[str], None]
) -> None:
    pairs = []
    for bundle in map(scripted, SHIPPED if nightly else SHIPPED[:1]):
        program, reference = bundle.default_program(), opened(bundle, EXACT)
        assert len(program) >= 1000
        candidates = [name for name in NAMES if name != EXACT] if nightly else ["openvino"]
        pairs += [Pair(bundle, opened(bundle, name), reference, program) for name in candidates]
    least = min(cases.run(same_samples, pairs))
    note(f"D4: after 1000 steps the PSNR is at least {least:.1f} dB")


@pytest.mark.seeded("D4")
def test_noise_that_is_a_row_late_is_seen() -> None:
    class Late(Draws):
        def normal(self, draws: Any) -> Floats:
            return super().normal(np.maximum(np.asarray(draws), 1) - 1)

    bundle = read_bundle(find_bundle("ddpm-mnist"))
    backend = opened(bundle, EXACT)
    pair = Pair(bundle, backend, backend, ddpm(bundle.spec, steps=50))
    same_samples(pair)
    with pytest.raises(AssertionError, match="dB"):
        same_samples(pair, Late)
