"""Langevin corrections whose size follows the norms of score and noise."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from difftool.diffusion import samplers
from difftool.diffusion.columns import Column
from difftool.diffusion.features import Feature
from difftool.diffusion.invariant import validate
from difftool.diffusion.spec import ModelSpec
from difftool.runtime.backends.reference import Reference
from difftool.verify.eager import Eager
from tests.oracles import plain_loops_sde
from tests.oracles.analytic import (
    MODELS,
    NCSNV2,
    START,
    VE,
    VP,
    denoiser,
    draws,
    gap,
    level_pairs,
    run_table,
    same_draws,
)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("corrections", [1, 2])
@pytest.mark.parametrize("corrector", ["adaptive", "reference"])
def test_a_correction_is_the_papers_loop(corrector: str, corrections: int, model: str) -> None:
    spec = MODELS[model]
    program = samplers.predictor_corrector(
        spec, steps=10 * (1 + corrections), corrections=corrections, corrector=corrector
    )
    levels = level_pairs(spec, 10, "linspace")
    loop, denoise = plain_loops_sde.norm_corrected, denoiser(spec)
    options = {"snr": 0.16, "corrections": corrections, "over_batch": corrector == "reference"}
    assert program.adaptive
    assert gap(spec, program, loop, levels, denoise, draw=same_draws(), **options) < 1e-10


def test_only_the_reference_makes_samples_depend_on_their_neighbours() -> None:
    for corrector, alike in (("fixed", True), ("adaptive", True), ("reference", False)):
        program = samplers.predictor_corrector(VE, steps=20, corrector=corrector)
        together = run_table(VE, program, START)
        disturbed = START.copy()
        disturbed[1:] *= 3
        assert np.allclose(run_table(VE, program, disturbed)[0], together[0], atol=1e-12) == alike


def test_the_proof_takes_norms_as_they_are_for_many_elements() -> None:
    """A perfect score's norm is |z| / sigma: an adaptive correction's noise is a fixed one's."""
    fixed, adaptive = (
        validate(samplers.predictor_corrector(VE, steps=20, snr=0.01, corrector=corrector))
        for corrector in ("fixed", "adaptive")
    )
    assert adaptive.signal_error < 1e-12
    # The predictor leaves more noise than its level's; a norm shows it, the fixed size does not.
    assert adaptive.noise_error == pytest.approx(fixed.noise_error, rel=0.01)
    first = samplers.predictor_corrector(VE, steps=2, corrector="adaptive")
    rate, sigma = 2 * 0.16**2, float(VE.schedule.sigma[-1])
    noise = sigma * math.hypot(1 - rate, math.sqrt(2 * rate))
    assert validate(first).noise_error == pytest.approx(noise - sigma, rel=1e-9)


class _Toy(nn.Module):
    def condition(self, cond: Tensor) -> Tensor:
        return cond[:, None] / 20

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return torch.tanh(x) + c


@pytest.mark.parametrize("spec", [NCSNV2, VP], ids=["ve", "vp"])
@pytest.mark.parametrize("corrector", ["fixed", "adaptive", "reference"])
def test_the_step_graph_computes_the_same_norms(corrector: str, spec: ModelSpec) -> None:
    program = samplers.predictor_corrector(spec, steps=20, corrector=corrector)
    reference = Reference(lambda x, cond: np.tanh(x) + cond[:, None] / 20, spec.shape)
    exact = reference.batch(program, len(START))
    found = Eager(_Toy(), spec, {Feature.NORMS}).batch(program, len(START))
    x, noise = (START * program.start.high).astype(np.float32), draws()
    exact.start(x)
    for index, row in enumerate(program.table):
        drawn = next(noise).astype(np.float32) if row[Column.D] else None
        # Row by row: if a drift is small, its step is large, and rounding grows with it.
        found.start(exact.x, row=index)
        exact.step(drawn)
        found.step(drawn)
        assert np.abs(found.x - exact.x).max() < 1e-5 * max(1, np.abs(exact.x).max())
