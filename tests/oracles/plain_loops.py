"""Samplers as the papers write them: stateful float64 loops over a denoiser; the oracles.

`Denoiser` is D(x, alpha, sigma); `draw` yields the next standard normal.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Denoiser = Callable[[Array, float, float], Array]
Draw = Callable[[], Array]

_rng = np.random.default_rng(0)
CENTERS = _rng.uniform(-0.8, 0.8, size=(5, 4))
SPREAD = 0.05


def mixture_denoiser(x: Array, alpha: float, sigma: float) -> Array:
    """Return the posterior mean of a mixture of five Gaussians in 4-D: nonlinear, known exactly."""
    variance = alpha**2 * SPREAD + sigma**2
    distance = ((x[:, None] - alpha * CENTERS) ** 2).sum(-1)
    weights = np.exp(-(distance - distance.min(1, keepdims=True)) / (2 * variance))
    weights /= weights.sum(1, keepdims=True)
    posterior = CENTERS + alpha * SPREAD / variance * (x[:, None] - alpha * CENTERS)
    mixed: Array = (weights[..., None] * posterior).sum(1)
    return mixed


def ancestral(
    x: Array, alpha_bars: Sequence[float], denoise: Denoiser, draw: Draw, *, large: bool
) -> Array:
    """Ho et al. 2020: the posterior mean of eq. 7; the variance is beta or beta tilde."""
    for current, previous in zip(alpha_bars, [*alpha_bars[1:], 1.0], strict=True):
        beta = 1 - current / previous
        x0 = np.clip(denoise(x, math.sqrt(current), math.sqrt(1 - current)), -1, 1)
        mean = math.sqrt(previous) * beta / (1 - current) * x0
        mean = mean + math.sqrt(1 - beta) * (1 - previous) / (1 - current) * x
        variance = beta if large else beta * (1 - previous) / (1 - current)
        x = mean + math.sqrt(variance) * draw() if previous < 1 else mean
    return x


def implicit(
    x: Array,
    alpha_bars: Sequence[float],
    denoise: Denoiser,
    draw: Draw,
    *,
    eta: float,
    raw_epsilon: bool,
) -> Array:
    """Song et al. 2021, eq. 12, with x0 clipped."""
    for current, previous in zip(alpha_bars, [*alpha_bars[1:], 1.0], strict=True):
        free = denoise(x, math.sqrt(current), math.sqrt(1 - current))
        x0 = np.clip(free, -1, 1)
        source = free if raw_epsilon else x0
        epsilon = (x - math.sqrt(current) * source) / math.sqrt(1 - current)
        std = eta * math.sqrt((1 - previous) / (1 - current) * (1 - current / previous))
        x = math.sqrt(previous) * x0 + math.sqrt(max(1 - previous - std**2, 0)) * epsilon
        if std:
            x = x + std * draw()
    return x


def annealed(
    x: Array,
    sigmas: Sequence[float],
    denoise: Denoiser,
    draw: Draw,
    *,
    step_size: float,
    each: int,
    image: bool,
    last: bool,
) -> Array:
    """Song and Ermon 2019, algorithm 1; `image` is the variant of their image code."""
    for sigma in sigmas:
        step = step_size * (sigma / sigmas[-1]) ** 2
        for _ in range(each):
            score = (denoise(x, 1.0, sigma) - x) / sigma**2
            if image:
                x = x + step * score + math.sqrt(2 * step) * draw()
            else:
                x = x + step / 2 * score + math.sqrt(step) * draw()
    if last:
        score = (denoise(x, 1.0, sigmas[-1]) - x) / sigmas[-1] ** 2
        x = x + sigmas[-1] ** 2 * score
    return x
