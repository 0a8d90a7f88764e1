"""Samplers that draw noise: the plain loops of their papers."""

from collections.abc import Callable

import pytest

from difftool.diffusion import samplers
from difftool.diffusion.invariant import validate
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from tests.oracles import plain_loops_sde
from tests.oracles.analytic import (
    EDM,
    NCSNV2,
    VE,
    VP,
    denoiser,
    gap,
    level_pairs,
    same_draws,
    scaled,
)
from tests.oracles.plain_loops import Array

MODELS = {"vp": VP, "ncsnv2": NCSNV2, "edm": EDM}


@pytest.mark.parametrize("spacing", ["linspace", "karras"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("sampler", "loop"),
    [
        (samplers.euler_ancestral, plain_loops_sde.euler_ancestral),
        (samplers.dpmpp_2m_sde, plain_loops_sde.sde_dpm_solver_pp),
    ],
)
def test_a_table_is_the_papers_loop(
    sampler: Callable[..., Program],
    loop: Callable[..., Array],
    eta: float,
    model: str,
    spacing: str,
) -> None:
    spec = MODELS[model]
    program = sampler(spec, steps=25, eta=eta, spacing=spacing)
    levels, denoise = level_pairs(spec, 25, spacing), denoiser(spec)
    assert gap(spec, program, loop, levels, denoise, draw=same_draws(), eta=eta) < 1e-10


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("steps", [1, 40])
@pytest.mark.parametrize(
    "predictor", ["reverse_diffusion", "probability_flow", "ancestral", "corrected"]
)
def test_score_sde_is_the_papers_loop(predictor: str, steps: int, model: str) -> None:
    spec = MODELS[model]
    sigmas, denoise = scaled(spec, steps, "linspace", clip=True)
    taus, corrections = [], 0
    if predictor in samplers.SAMPLERS:
        program = samplers.SAMPLERS[predictor](spec, steps=steps)
    else:
        corrections = 2 if predictor == "corrected" else 1
        predictor = "ancestral" if predictor == "ancestral" else "reverse_diffusion"
        program = samplers.predictor_corrector(
            spec, steps=steps * (1 + corrections), corrections=corrections, predictor=predictor
        )
        alphas = [alpha for alpha, _ in level_pairs(spec, steps, "linspace")]
        taus = [
            2 * (alphas[i] / alphas[i + 1]) ** 2 * (0.16 * sigmas[i]) ** 2 for i in range(steps)
        ]
    assert program.nfe == steps * (1 + corrections)
    options = {"predictor": predictor, "taus": taus, "corrections": corrections}
    loop = plain_loops_sde.score_sde
    assert gap(spec, program, loop, sigmas, denoise, draw=same_draws(), **options) < 1e-10
    assert not program.exact_noise
    assert validate(program).signal_error < 1e-12


def test_many_steps_of_the_reverse_sde_and_its_flow_meet_the_noise_in_the_limit() -> None:
    for sampler in (samplers.reverse_diffusion, samplers.probability_flow):
        errors = [
            validate(sampler(EDM, steps=steps, spacing="half_log_snr")).noise_error
            for steps in (100, 200)
        ]
        assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("spec", "steps", "step_size"),
    [(NCSNV2, 100, 0.085e-4), (NCSNV2, 250, 0.5e-5), (EDM, 40, 1e-6), (VE, 10, 0.5e-4)],
)
def test_consistent_is_the_papers_loop(spec: ModelSpec, steps: int, step_size: float) -> None:
    sigmas, denoise = scaled(spec, steps, "half_log_snr", clip=False)
    program = samplers.consistent_annealed(spec, steps=steps, step_size=step_size)
    loop, eta = plain_loops_sde.consistent, step_size / sigmas[-1] ** 2
    assert gap(spec, program, loop, sigmas, denoise, draw=same_draws(), eta=eta) < 1e-10
    assert validate(program).noise_error < 1e-12
