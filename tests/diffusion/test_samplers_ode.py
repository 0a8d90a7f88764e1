"""Deterministic samplers: the invariant, the plain loops of their papers, and their order."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from difftool.diffusion import samplers
from difftool.diffusion.invariant import validate
from difftool.diffusion.spacing import visited
from difftool.diffusion.spec import ModelSpec
from tests.oracles import analytic, plain_loops_ode
from tests.oracles.analytic import (
    COSINE,
    FREE,
    START,
    VP,
    denoiser,
    gap,
    level_pairs,
    run_table,
    same_draws,
)
from tests.oracles.plain_loops import Array

MODELS = {**analytic.MODELS, "cosine": COSINE}
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
    ("sampler", "arguments", "loop", "options"),
    [
        ("euler", {}, plain_loops_ode.euler, {}),
        ("dpmpp_2m", {}, plain_loops_ode.dpm_solver_pp, {"order": 2}),
        ("dpmpp_3m", {}, plain_loops_ode.dpm_solver_pp, {"order": 3}),
        *(("unipc", {"order": n}, plain_loops_ode.unipc, {"order": n}) for n in (1, 2, 3)),
    ],
    ids=["euler", "dpmpp_2m", "dpmpp_3m", "unipc-1", "unipc-2", "unipc-3"],
)
def test_a_table_is_the_papers_loop(
    sampler: str,
    arguments: dict[str, int],
    loop: Callable[..., Array],
    options: dict[str, int],
    steps: int,
    model: str,
    spacing: str,
) -> None:
    spec = MODELS[model]
    program = samplers.SAMPLERS[sampler](spec, steps=steps, spacing=spacing, **arguments)
    levels = level_pairs(spec, steps, spacing)
    assert gap(spec, program, loop, levels, denoiser(spec), **options) < 1e-10


@pytest.mark.parametrize("spacing", ["linspace", "quadratic"])
@pytest.mark.parametrize("model", ["vp", "ncsnv2", "edm"])
@pytest.mark.parametrize("steps", [3, 4, 5, 25])
def test_plms_is_the_papers_loop(steps: int, model: str, spacing: str) -> None:
    spec = MODELS[model]
    program = samplers.plms(spec, steps=steps, spacing=spacing)
    levels = level_pairs(spec, steps - 1, spacing)
    assert gap(spec, program, plain_loops_ode.plms, levels, denoiser(spec)) < 1e-10


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
    levels = level_pairs(spec, steps // 2 + 1, spacing)
    largest = spec.schedule.sigma[-1] / spec.schedule.alpha[-1]
    churned = []
    for alpha, sigma in levels[:-1]:
        gamma = min(churn / len(visits), math.sqrt(2) - 1) if 0.05 <= sigma / alpha <= 50 else 0
        t_hat = min(sigma / alpha * (1 + gamma), largest)
        alpha_hat = 1 / math.hypot(1, t_hat) if spec is VP else 1.0
        churned.append((alpha_hat, alpha_hat * t_hat) if gamma else (alpha, sigma))
    options = {"churned": churned, "noise": noise, "uncorrected": 1 + (steps % 2 == 0)}
    loop, denoise = plain_loops_ode.heun, denoiser(spec)
    assert gap(spec, program, loop, levels, denoise, draw=same_draws(), **options) < 1e-10
    if spacing != "quadratic":
        assert program.nfe == steps
    assert validate(program).signal_error < 1e-12
    assert program.exact_noise == (not program.table[:, 9].any())


@pytest.mark.parametrize("model", MODELS)
def test_euler_is_ddim_and_second_order_begins_as_euler(model: str) -> None:
    spec = MODELS[model]
    euler = samplers.euler(spec, steps=10)
    assert euler.table == pytest.approx(samplers.ddim(spec, steps=10).table, rel=1e-12)
    ancestral = samplers.euler_ancestral(spec, steps=10)
    assert ancestral.table == pytest.approx(samplers.ddim(spec, steps=10, eta=1).table, rel=1e-9)
    assert samplers.dpmpp_2m(spec, steps=10).table[0, :10] == pytest.approx(euler.table[0, :10])


@pytest.fixture(scope="module", params=FREE)
def problem(request: pytest.FixtureRequest) -> tuple[ModelSpec, Array, Array]:
    """A model, a start, and the end of the ODE from there by 1000 classical Runge-Kutta steps."""
    spec: ModelSpec = FREE[request.param]
    denoise = denoiser(spec)
    half_log_snr, steps = spec.schedule.half_log_snr, 1000
    h = float(half_log_snr[0] - half_log_snr[-1]) / steps

    def slope(y: Array, at: float) -> Array:
        """dy / d(half_log_snr) of y = x / alpha: D - y."""
        ratio = np.exp(-at)
        alpha = 1 / np.hypot(1, ratio) if spec.schedule.variance_preserving else 1.0
        return denoise(alpha * y, alpha, alpha * ratio) - y

    start = START * float(samplers.euler(spec).start.high)
    y = start / spec.schedule.alpha[-1]
    for index in range(steps):
        at = float(half_log_snr[-1]) + index * h
        k1 = slope(y, at)
        k2 = slope(y + h / 2 * k1, at + h / 2)
        k3 = slope(y + h / 2 * k2, at + h / 2)
        k4 = slope(y + h * k3, at + h)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    alpha, sigma = float(spec.schedule.alpha[0]), float(spec.schedule.sigma[0])
    return spec, start, denoise(alpha * y, alpha, sigma)


@pytest.mark.parametrize(
    ("sampler", "order", "least"),
    [
        ("euler", {}, 0.9),
        ("ddim", {}, 0.9),
        ("heun", {}, 1.8),
        ("dpmpp_2m", {}, 1.8),
        ("dpmpp_3m", {}, 1.8),
        ("unipc", {"order": 1}, 1.8),
        ("unipc", {"order": 2}, 1.8),
        ("unipc", {"order": 3}, 2.6),
    ],
)
def test_a_sampler_has_its_order(
    sampler: str, order: dict[str, int], least: float, problem: tuple[ModelSpec, Array, Array]
) -> None:
    spec, start, exact = problem
    counts = [32, 64, 128, 256]
    errors = []
    for steps in counts:
        program = samplers.SAMPLERS[sampler](spec, steps=steps, spacing="half_log_snr", **order)
        errors.append(np.sqrt(np.mean((run_table(spec, program, start) - exact) ** 2)))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope >= least
