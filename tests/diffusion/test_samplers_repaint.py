"""RePaint: the paper's loop, and inpainting with a known answer."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from difftool.diffusion import samplers
from difftool.diffusion.invariant import validate
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.runtime.backends.reference import Reference
from tests.oracles import plain_loops_sde
from tests.oracles.analytic import (
    FREE,
    MODELS,
    START,
    VP,
    denoiser,
    draws,
    gaussian_denoiser,
    level_pairs,
    make_network,
    run_table,
    same_draws,
)
from tests.oracles.plain_loops import Array


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("jump", "resamples"), [(1, 4), (3, 3), (4, 1), (9, 2)])
def test_a_table_is_the_papers_loop(jump: int, resamples: int, model: str) -> None:
    """The paper draws noise for a step down and one up; the table draws their sum at once."""
    spec, back = MODELS[model], len(range(0, 10 - jump, jump))
    steps = 10 + (resamples - 1) * jump * back
    program = samplers.repaint(spec, steps=steps, jump=jump, resamples=resamples)
    x = START * program.start.high
    expected, noise = plain_loops_sde.repaint(
        x, level_pairs(spec, 10, "linspace"), denoiser(spec), same_draws(),
        jump=jump, resamples=resamples,
    )  # fmt: skip
    batch = Reference(make_network(spec), spec.shape).batch(program, len(x))
    batch.start(x)
    for drawn in noise:
        batch.step(drawn)
    assert program.nfe == len(noise) == steps
    assert np.abs(batch.x - expected).max() < 1e-10


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("steps", [None, 1, 2, 11, 57, 91])
def test_every_number_of_evaluations_meets_every_level(steps: int | None, model: str) -> None:
    program = samplers.repaint(MODELS[model], steps=steps)
    proof = validate(program)
    assert program.exact_noise
    assert max(proof.signal_error, proof.noise_error) < 1e-12
    assert program.targets[-1].tolist() == [1, 0]
    assert steps is None or program.nfe == steps


def test_by_default_it_is_the_papers_walk() -> None:
    """250 levels, 10 back at each tenth but the two noisiest, nine times (appendix B)."""
    program = samplers.repaint(VP)
    assert len(program.conds) == 250
    assert program.nfe == 250 + 24 * 9 * 10


def test_once_through_is_ddpm() -> None:
    once = samplers.repaint(VP, steps=50, resamples=1)
    assert once.table == pytest.approx(samplers.ddpm(VP, steps=50).table, rel=1e-9)


COVARIANCE = np.array([[0.5, 0.3, 0.2], [0.3, 0.4, 0.1], [0.2, 0.1, 0.3]])
MEAN = np.array([0.2, -0.1, 0.3])
KNOWN = 1.2  # the first coordinate; the others are correlated with it
GAUSSIANS = {name: replace(spec, shape=(3,)) for name, spec in FREE.items()}


def drawn(spec: ModelSpec, program: Program, covariance: Array, *, fill: bool = True) -> Array:
    """Return the last two coordinates of samples, float64 [4000, 2]; `fill` sets the first."""
    noise = draws(5, (4000, 3))
    x = run_table(
        spec,
        program,
        program.start.high * next(noise),
        gaussian_denoiser(MEAN, covariance),
        noise=noise,
        known=(np.array([KNOWN, 0, 0]), np.array([1.0, 0, 0])) if fill else None,
    )
    assert (np.abs(x[:, 0] - KNOWN).max() < 1e-12) == fill
    return x[:, 1:]


@pytest.mark.parametrize("spec", GAUSSIANS.values(), ids=GAUSSIANS)
@pytest.mark.parametrize(
    "compiled",
    [
        partial(samplers.ddpm, steps=100),
        partial(samplers.ddim, steps=100, eta=1.0),
        partial(samplers.repaint, steps=300, jump=2, resamples=4),
    ],
    ids=["ddpm", "ddim", "repaint"],
)
def test_what_is_known_leaves_independent_values_as_they_are(
    compiled: Callable[..., Program], spec: ModelSpec
) -> None:
    program = compiled(spec, spacing="half_log_snr")
    independent = np.diag(COVARIANCE.diagonal())
    found = drawn(spec, program, independent)
    assert found == pytest.approx(drawn(spec, program, independent, fill=False), abs=1e-12)
    variance = independent.diagonal()[1:]
    assert np.abs(found.mean(0) - MEAN[1:]).max() < 4 * np.sqrt(variance.max() / len(found))
    assert found.var(0) / variance == pytest.approx(1, abs=0.05 + 4 * np.sqrt(2 / len(found)))


@pytest.mark.parametrize("spec", GAUSSIANS.values(), ids=GAUSSIANS)
def test_resampling_comes_nearer_to_the_exact_conditional(spec: ModelSpec) -> None:
    """Without resampling, x follows the known values only as far as D has moved it."""
    slope = COVARIANCE[1:, 0] / COVARIANCE[0, 0]
    exact = MEAN[1:] + slope * (KNOWN - MEAN[0])
    spread = (COVARIANCE[1:, 1:] - np.outer(slope, COVARIANCE[0, 1:])).diagonal()
    programs = (
        samplers.ddpm(spec, steps=1000, spacing="half_log_snr"),
        samplers.ddim(spec, steps=100, eta=1.0, spacing="half_log_snr"),
        samplers.repaint(spec, steps=1000, spacing="half_log_snr"),
    )
    found = [drawn(spec, program, COVARIANCE) for program in programs]
    errors = [np.abs(samples.mean(0) - exact).max() for samples in found]
    assert 0.3 < min(errors[:2]) / np.abs(exact - MEAN[1:]).max() < 0.5
    assert errors[2] < min(errors[:2]) / 5
    assert found[2].var(0) / spread == pytest.approx(1, abs=0.12)
