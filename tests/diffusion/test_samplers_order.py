"""Samplers approach the exact solution of the probability-flow ODE with their order."""

import numpy as np
import pytest

from difftool.diffusion import samplers
from difftool.diffusion.spec import ModelSpec
from tests.oracles.analytic import FREE, START, denoiser, run_table
from tests.oracles.plain_loops import Array


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
