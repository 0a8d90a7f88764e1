"""Programs for the part of a model's levels that has least noise, which start from data."""

from collections.abc import Callable

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
from tests.oracles.analytic import EDM, NCSNV2, VE, VP, Array

COSINE = ModelSpec(
    shape=(4,),
    schedule=schedules.cosine(steps=100),
    parameterization="v",
    cond="timestep",
    timestep_scale=10.0,
)
MODELS = {"vp": VP, "cosine": COSINE, "ncsn": VE, "ncsnv2": NCSNV2, "edm": EDM}
OF_THE_NETWORK = [Column.C_IN, Column.C_SKIP, Column.C_OUT]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_half_strength_is_the_less_noisy_half(sampler: str, model: str) -> None:
    spec = MODELS[model]
    half = spec.up_to(0.5)
    program = samplers.compile_program(half, SamplerCall(sampler))
    proof = validate(program)
    assert max(proof.signal_error, proof.noise_error * program.exact_noise) < 1e-12
    assert program.start.kind == "data"

    levels = len(spec.schedule) // 2
    assert len(half.schedule) == levels
    conds = np.sort(spec.conds(np.arange(levels)))
    assert conds[0] <= program.conds.min() <= program.conds.max() <= conds[-1]
    at = program.conds[program.table[:, Column.COND].astype(int)]
    if not np.isin(program.conds, conds).all():  # spaced between levels
        return
    # What the network is fed and how it is read is the whole model's, level by level.
    every = samplers.compile_program(spec, SamplerCall(sampler))
    whole = every.conds[every.table[:, Column.COND].astype(int)]
    for cond in np.intersect1d(at, whole):
        ours, theirs = program.table[at == cond][0], every.table[whole == cond][0]
        assert ours[OF_THE_NETWORK] == pytest.approx(theirs[OF_THE_NETWORK], rel=1e-12)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("sampler", ["ddpm", "reverse_diffusion", "probability_flow"])
def test_every_level_of_the_half_is_the_end_of_every_level(sampler: str, model: str) -> None:
    spec = MODELS[model]
    half, whole = (
        samplers.SAMPLERS[sampler](each, steps=len(each.schedule))
        for each in (spec.up_to(0.5), spec)
    )
    columns = [column for column in Column if "COND" not in column.name and column < Column.HISTORY]
    assert np.array_equal(half.table[:, columns], whole.table[-len(half) :, columns])
    assert np.array_equal(
        half.conds[half.table[:, Column.COND].astype(int)],
        whole.conds[whole.table[-len(half) :, Column.COND].astype(int)],
    )
    assert np.array_equal(half.targets, whole.targets[-len(half) - 1 :])


def test_cutting_twice_is_cutting_once() -> None:
    twice, once = VE.up_to(0.8).up_to(0.5), VE.up_to(0.4)
    assert twice.conds([0, 3]).tolist() == once.conds([0, 3]).tolist() == [9, 6]
    assert samplers.ddpm(twice).table.tolist() == samplers.ddpm(once).table.tolist()


def test_full_strength_starts_from_noise() -> None:
    for spec in MODELS.values():
        assert samplers.ddpm(spec.up_to(1)).start == samplers.ddpm(spec).start


HUNDRED = {
    "vp": ModelSpec(
        shape=(4,),
        schedule=schedules.linear(steps=100, beta_end=0.2),
        parameterization="epsilon",
        cond="timestep",
    ),
    "ncsn": ModelSpec(
        shape=(4,),
        schedule=schedules.geometric(levels=100, sigma_min=0.01, sigma_max=1),
        parameterization="score",
        cond="level",
    ),
}
MEAN = np.array([0.1, -0.2, 0.3, 0.0])
VARIANCE = 0.3


def _network(spec: ModelSpec) -> Callable[[Array, Array], Array]:
    """The network whose D is the posterior mean of a Gaussian."""
    most = len(spec.schedule) - 1

    def network(x: Array, cond: Array) -> Array:
        index = cond[0] if spec.cond == "timestep" else most - cond[0]
        alpha, sigma = (float(value) for value in spec.schedule.at(index))
        score = (alpha * MEAN - x) / (alpha**2 * VARIANCE + sigma**2)
        return -sigma * score if spec.parameterization == "epsilon" else score

    return network


def _moved(spec: ModelSpec, program: Program) -> float:
    """How far, in root mean square, the samples are from the data that they start from."""
    rng = np.random.default_rng(3)
    init = MEAN + np.sqrt(VARIANCE) * rng.normal(size=(500, 4))
    alpha, sigma = program.targets[0]
    batch = Reference(_network(spec), spec.shape).batch(program, len(init))
    batch.start(alpha * init + sigma * rng.normal(size=init.shape))
    for row in program.table:
        batch.step(rng.normal(size=init.shape) if row[Column.D] else None)
    return float(np.sqrt(np.mean((batch.x - init) ** 2)))


@pytest.mark.parametrize("spec", HUNDRED.values(), ids=HUNDRED)
@pytest.mark.parametrize("sampler", sorted(set(samplers.SAMPLERS) - {"langevin"}))
def test_samples_come_to_the_data_as_the_strength_goes_to_nothing(
    sampler: str, spec: ModelSpec
) -> None:
    """`langevin` walks on from the data, however little noise there is."""
    moved = []
    for strength in (0.5, 0.1, 0.03):
        cut = spec.up_to(strength)
        once = {"steps": len(cut.schedule)} if sampler == "annealed_langevin" else {}
        moved.append(_moved(spec, samplers.compile_program(cut, SamplerCall(sampler, once))))
    least = float(spec.schedule.sigma[2])
    assert moved[0] > moved[1] > 1.2 * moved[2]
    assert 0.5 * least < moved[2] < 4 * least


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.1])
def test_no_such_strength(strength: float) -> None:
    with pytest.raises(UsageError, match="not in 0"):
        VP.up_to(strength)


def test_a_single_level_is_too_little_for_plms() -> None:
    with pytest.raises(UsageError, match="use ddim or euler"):
        samplers.plms(VE.up_to(0.1))
