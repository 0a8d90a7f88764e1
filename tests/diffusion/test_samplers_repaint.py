"""RePaint: the paper's loop, and inpainting where the answer is known."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from difftool.diffusion import samplers, schedules
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.columns import Column
from difftool.diffusion.invariant import validate
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.runtime.backends.reference import Reference
from tests.oracles import plain_loops_sde
from tests.oracles.analytic import (
    EDM,
    NCSNV2,
    START,
    VE,
    VP,
    Array,
    denoiser,
    draws,
    levels_of,
    network_of,
)

MODELS = {"vp": VP, "ve": VE, "ncsnv2": NCSNV2, "edm": EDM}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("jump", "resamples"), [(1, 4), (3, 3), (4, 1), (9, 2)])
def test_a_table_is_the_papers_loop(jump: int, resamples: int, model: str) -> None:
    """The table draws once where the paper steps down and up, from the sum of those noises."""
    spec, back = MODELS[model], len(range(0, 10 - jump, jump))
    steps = 10 + (resamples - 1) * jump * back
    program = samplers.repaint(spec, steps=steps, jump=jump, resamples=resamples)
    x = START * program.start.high
    expected, noise = plain_loops_sde.repaint(
        x, levels_of(spec, 10, "linspace"), denoiser(spec), draws().__next__,
        jump=jump, resamples=resamples,
    )  # fmt: skip
    batch = Reference(network_of(spec), spec.shape).batch(program, len(x))
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
KNOWN = 1.2  # the first coordinate, known, is drawn from the others' correlation
GAUSSIANS = {
    "vp": ModelSpec(
        shape=(3,),
        schedule=schedules.linear(),
        parameterization="epsilon",
        cond="timestep",
    ),
    "ve": ModelSpec(
        shape=(3,),
        schedule=schedules.geometric(levels=100, sigma_min=0.01, sigma_max=20),
        parameterization="scaled_score",
        cond="level",
    ),
}


def gaussian(spec: ModelSpec, covariance: Array) -> Callable[[Array, Array], Array]:
    """The network whose D is the posterior mean of one Gaussian."""
    levels, identity = len(spec.schedule), np.eye(3)

    def network(x: Array, cond: Array) -> Array:
        index = cond[0] if spec.cond == "timestep" else levels - 1 - cond[0]
        alpha, sigma = (float(value) for value in spec.schedule.at(index))
        precision = np.linalg.inv(alpha**2 * covariance + sigma**2 * identity)
        epsilon = sigma * (x - alpha * MEAN) @ precision
        return epsilon if spec.parameterization == "epsilon" else -epsilon

    return network


def drawn(spec: ModelSpec, program: Program, covariance: Array, *, fill: bool = True) -> Array:
    """The last two coordinates of samples, float64 [4000, 2]; with `fill` the first is known."""
    count = 4000
    batch = Reference(gaussian(spec, covariance), (3,)).batch(program, count)
    rng = np.random.default_rng(5)
    known = (np.array([KNOWN, 0, 0]), np.array([1.0, 0, 0])) if fill else None
    batch.start(program.start.high * rng.normal(size=(count, 3)), known=known)
    for row in program.table:
        batch.step(rng.normal(size=(count, 3)) if row[Column.D] else None)
    assert (np.abs(batch.x[:, 0] - KNOWN).max() < 1e-12) == fill
    return np.asarray(batch.x[:, 1:])


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
    """Held values alone are no conditioning: x follows them only as far as D has moved it."""
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resamples": 0}, "0 resamples"),
        ({"jump": 0}, "jump 0"),
        ({"steps": 0}, "0 steps on a schedule of 10 levels"),
        ({"steps": -3}, "use 1 to 91 steps"),
        ({"steps": 92}, "use 1 to 91 steps"),
    ],
)
def test_what_has_no_meaning_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        samplers.compile_program(VE, SamplerCall("repaint", arguments))
    assert message in str(refusal.value)
