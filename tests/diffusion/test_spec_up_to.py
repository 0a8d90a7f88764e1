"""Programs for the part of a model's levels that has least noise, which start from data."""

from dataclasses import replace

import numpy as np
import pytest

from difftool.diffusion import samplers, schedules
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.columns import Column
from difftool.diffusion.invariant import validate
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from tests.oracles import analytic
from tests.oracles.analytic import FREE, VE, VP, draws, gaussian_denoiser, run_table

COSINE = replace(analytic.COSINE, schedule=schedules.cosine(steps=100), timestep_scale=10.0)
MODELS = {**analytic.MODELS, "cosine": COSINE}
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
    "vp": replace(FREE["vp"], schedule=schedules.linear(steps=100, beta_end=0.2)),
    "ncsn": replace(
        VE,
        schedule=schedules.geometric(levels=100, sigma_min=0.01, sigma_max=1),
        data_range=None,
    ),
}
MEAN = np.array([0.1, -0.2, 0.3, 0.0])
VARIANCE = 0.3


def moved(spec: ModelSpec, program: Program) -> float:
    """Return how far, in root mean square, samples are from the data that they start from."""
    noise = draws(3, (500, 4))
    init = MEAN + np.sqrt(VARIANCE) * next(noise)
    alpha, sigma = program.targets[0]
    start = alpha * init + sigma * next(noise)
    denoise = gaussian_denoiser(MEAN, VARIANCE * np.eye(4))
    x = run_table(spec, program, start, denoise, noise=noise)
    return float(np.sqrt(np.mean((x - init) ** 2)))


@pytest.mark.parametrize("spec", HUNDRED.values(), ids=HUNDRED)
@pytest.mark.parametrize("sampler", sorted(set(samplers.SAMPLERS) - {"langevin"}))
def test_samples_come_to_the_data_as_the_strength_vanishes(sampler: str, spec: ModelSpec) -> None:
    """`langevin` walks on from the data, however little noise there is."""
    found = []
    for strength in (0.5, 0.1, 0.03):
        cut = spec.up_to(strength)
        once = {"steps": len(cut.schedule)} if sampler == "annealed_langevin" else {}
        found.append(moved(spec, samplers.compile_program(cut, SamplerCall(sampler, once))))
    least = float(spec.schedule.sigma[2])
    assert found[0] > found[1] > 1.2 * found[2]
    assert 0.5 * least < found[2] < 4 * least


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.1])
def test_no_such_strength(strength: float) -> None:
    with pytest.raises(UsageError, match="not in 0"):
        VP.up_to(strength)


def test_a_single_level_is_too_little_for_plms() -> None:
    with pytest.raises(UsageError, match="use ddim or euler"):
        samplers.plms(VE.up_to(0.1))
