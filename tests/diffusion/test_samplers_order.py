"""How fast samplers approach the exact solution of the probability-flow ODE, on a mixture."""

from collections.abc import Callable

import numpy as np
import pytest

from difftool.diffusion import samplers, schedules
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from tests.oracles.analytic import START, Array, denoiser, run_table

# The data range is left out: a clipped D has a kink, where no order holds.
MODELS = {
    "vp": ModelSpec(
        shape=(4,), schedule=schedules.linear(), parameterization="epsilon", cond="timestep"
    ),
    "ve": ModelSpec(
        shape=(4,),
        schedule=schedules.geometric(levels=100, sigma_min=0.01, sigma_max=20),
        parameterization="scaled_score",
        cond="level",
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def problem(request: pytest.FixtureRequest) -> tuple[ModelSpec, Array, Array]:
    """A model, a start, and the end of the ODE from there by 1000 classical Runge-Kutta steps."""
    spec: ModelSpec = MODELS[request.param]
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
        pytest.param(samplers.euler, {}, 0.9, id="euler"),
        pytest.param(samplers.ddim, {}, 0.9, id="ddim"),
        pytest.param(samplers.heun, {}, 1.8, id="heun"),
        pytest.param(samplers.dpmpp_2m, {}, 1.8, id="dpmpp_2m"),
        pytest.param(samplers.dpmpp_3m, {}, 1.8, id="dpmpp_3m"),
        pytest.param(samplers.unipc, {"order": 1}, 1.8, id="unipc-1"),
        pytest.param(samplers.unipc, {"order": 2}, 1.8, id="unipc-2"),
        pytest.param(samplers.unipc, {"order": 3}, 2.6, id="unipc-3"),
    ],
)
def test_a_sampler_has_its_order(
    sampler: Callable[..., Program],
    order: dict[str, int],
    least: float,
    problem: tuple[ModelSpec, Array, Array],
) -> None:
    spec, start, exact = problem
    counts = [32, 64, 128, 256]
    errors = []
    for steps in counts:
        program = sampler(spec, steps=steps, spacing="half_log_snr", **order)
        errors.append(np.sqrt(np.mean((run_table(spec, program, start) - exact) ** 2)))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope >= least
