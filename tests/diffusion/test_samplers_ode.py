"""Deterministic samplers: the invariant, and the plain loops of their papers."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from difftool.diffusion import samplers, schedules
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.invariant import validate
from difftool.diffusion.spacing import visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from tests.oracles import plain_loops_ode
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
    run_table,
)

COSINE = ModelSpec(shape=(4,), schedule=schedules.cosine(), parameterization="v", cond="timestep")
MODELS = {"vp": VP, "cosine": COSINE, "ncsn": VE, "ncsnv2": NCSNV2, "edm": EDM}
WHOLE = ("linspace", "leading", "trailing", "quadratic")
SPACINGS = (*WHOLE, "half_log_snr", "karras")
EXACT = (
    *("ddim", "euler", "heun", "dpmpp_2m", "dpmpp_3m", "unipc", "plms"),
    *("ddpm", "euler_ancestral", "dpmpp_2m_sde", "consistent_annealed"),
)


@pytest.mark.parametrize(
    ("sampler", "model", "spacing"),
    [
        (sampler, model, spacing)
        for sampler in EXACT
        for model in MODELS
        for spacing in SPACINGS
        # PLMS wants even timesteps, and the NCSN knows whole levels only.
        if spacing in WHOLE or (sampler != "plms" and model != "ncsn")
    ],
)
def test_a_perfect_denoiser_meets_every_level(sampler: str, model: str, spacing: str) -> None:
    steps = 10 if model == "ncsn" else 25
    program = samplers.SAMPLERS[sampler](MODELS[model], steps=steps, spacing=spacing)
    assert program.exact_noise
    proof = validate(program)
    assert max(proof.signal_error, proof.noise_error) < 1e-12
    assert program.targets[-1].tolist() == [1, 0]
    if spacing != "quadratic":
        assert program.nfe == steps


@pytest.mark.parametrize("spacing", ["trailing", "karras"])
@pytest.mark.parametrize("model", ["vp", "ncsnv2", "edm"])
@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.parametrize(
    ("sampler", "arguments", "loop"),
    [
        pytest.param("euler", {}, plain_loops_ode.euler, id="euler"),
        *(
            pytest.param(
                f"dpmpp_{order}m",
                {},
                lambda x, levels, denoise, order=order: plain_loops_ode.dpm_solver_pp(
                    x, levels, denoise, order=order
                ),
                id=f"dpmpp_{order}m",
            )
            for order in (2, 3)
        ),
        *(
            pytest.param(
                "unipc",
                {"order": order},
                lambda x, levels, denoise, order=order: plain_loops_ode.unipc(
                    x, levels, denoise, order=order
                ),
                id=f"unipc-{order}",
            )
            for order in (1, 2, 3)
        ),
    ],
)
def test_a_table_is_the_papers_loop(
    sampler: str,
    arguments: dict[str, int],
    loop: Callable[..., Array],
    steps: int,
    model: str,
    spacing: str,
) -> None:
    spec = MODELS[model]
    program = samplers.SAMPLERS[sampler](spec, steps=steps, spacing=spacing, **arguments)
    x = START * program.start.high
    expected = loop(x, levels_of(spec, steps, spacing), denoiser(spec))
    assert np.abs(run_table(spec, program, x) - expected).max() < 1e-10


@pytest.mark.parametrize("spacing", ["linspace", "quadratic"])
@pytest.mark.parametrize("model", ["vp", "ncsnv2", "edm"])
@pytest.mark.parametrize("steps", [3, 4, 5, 25])
def test_plms_is_the_papers_loop(steps: int, model: str, spacing: str) -> None:
    spec = MODELS[model]
    program = samplers.plms(spec, steps=steps, spacing=spacing)
    x = START * program.start.high
    expected = plain_loops_ode.plms(x, levels_of(spec, steps - 1, spacing), denoiser(spec))
    assert np.abs(run_table(spec, program, x) - expected).max() < 1e-10


@pytest.mark.parametrize("spacing", ["quadratic", "karras"])
@pytest.mark.parametrize("model", ["vp", "ncsnv2", "edm"])
@pytest.mark.parametrize("steps", [2, 3, 24, 25])
@pytest.mark.parametrize("churn", [0.0, 10.0])
def test_heun_is_the_papers_loop(churn: float, steps: int, model: str, spacing: str) -> None:
    spec, noise = MODELS[model], 1.003
    program = samplers.heun(
        spec, steps=steps, churn=churn, churn_min=0.05, churn_max=50, churn_noise=noise,
        spacing=spacing,
    )  # fmt: skip
    visits = visited(spec.schedule, steps // 2 + 1, spacing)
    levels = levels_of(spec, steps // 2 + 1, spacing)
    largest = spec.schedule.sigma[-1] / spec.schedule.alpha[-1]
    churned = []
    for alpha, sigma in levels[:-1]:
        gamma = min(churn / len(visits), math.sqrt(2) - 1) if 0.05 <= sigma / alpha <= 50 else 0
        t_hat = min(sigma / alpha * (1 + gamma), largest)
        alpha_hat = 1 / math.hypot(1, t_hat) if spec is VP else 1.0
        churned.append((alpha_hat, alpha_hat * t_hat) if gamma else (alpha, sigma))
    x = START * program.start.high
    expected = plain_loops_ode.heun(
        x, levels, churned, denoiser(spec), draws().__next__, noise=noise,
        uncorrected=1 + (steps % 2 == 0),
    )  # fmt: skip
    assert np.abs(run_table(spec, program, x) - expected).max() < 1e-10
    if spacing != "quadratic":
        assert program.nfe == steps
    assert validate(program).signal_error < 1e-12
    assert program.exact_noise == (not program.table[:, 9].any())


@pytest.mark.parametrize("steps", [3, 4, 5, 9])
@pytest.mark.parametrize("sampler", ["heun", "plms"])
def test_long_steps_meet_every_level_too(sampler: str, steps: int) -> None:
    """From sigma / alpha of 2e4 at once: Heun's weights on D are millions, of opposite sign."""
    proof = validate(samplers.SAMPLERS[sampler](COSINE, steps=steps))
    assert max(proof.signal_error, proof.noise_error) < 1e-12


def test_churn_without_inflation_meets_every_level() -> None:
    program = samplers.heun(EDM, churn=40, churn_min=0.05, churn_max=50)
    assert program.exact_noise
    assert validate(program).noise_error < 1e-12


@pytest.mark.parametrize("model", MODELS)
def test_euler_is_ddim_and_second_order_begins_as_euler(model: str) -> None:
    spec = MODELS[model]
    euler = samplers.euler(spec, steps=10)
    assert euler.table == pytest.approx(samplers.ddim(spec, steps=10).table, rel=1e-12)
    ancestral = samplers.euler_ancestral(spec, steps=10)
    assert ancestral.table == pytest.approx(samplers.ddim(spec, steps=10, eta=1).table, rel=1e-9)
    assert samplers.dpmpp_2m(spec, steps=10).table[0, :10] == pytest.approx(euler.table[0, :10])


@pytest.mark.parametrize(
    ("sampler", "arguments", "message"),
    [
        ("unipc", {"order": 4}, "UniPC of order 4"),
        ("plms", {"steps": 2}, "PLMS with 2 steps"),
        ("plms", {"spacing": "half_log_snr"}, "PLMS needs even timesteps"),
        ("plms", {"steps": 12}, "12 steps on a schedule of 10 levels .use 3 to 11 steps"),
        ("heun", {"steps": 0}, "0 steps on a schedule"),
        ("heun", {"steps": 20}, "20 steps on a schedule of 10 levels .use 1 to 19 steps"),
        ("heun", {"churn": -1.0}, "churn_min is negative"),
        ("euler", {"spacing": "cubic"}, "unknown spacing 'cubic'"),
        ("euler", {"spacing": 3}, "spacing is 3"),
        ("dpmpp_2m", {"spacing": "karras"}, "knows its 10 noise levels and none between"),
        ("heun", {"steps": 9, "churn": 4.0}, "knows its 10 noise levels and none between"),
        ("dpmpp_2m", {"steps": 11}, "11 steps on a schedule of 10 levels"),
    ],
)
def test_what_has_no_meaning_is_refused(
    sampler: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        samplers.compile_program(VE, SamplerCall(sampler, {"steps": 8, **arguments}))
