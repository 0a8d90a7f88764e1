"""Deterministic samplers as the papers write them: stateful float64 loops; the oracles.

`levels` are (alpha, sigma) from most to least noise, and then the clean end (1, 0).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tests.oracles.plain_loops import Array, Denoiser, Draw

Levels = Sequence[tuple[float, float]]


def euler(x: Array, levels: Levels, denoise: Denoiser) -> Array:
    """Karras et al. 2022, algorithm 1 without lines 6 to 8, on y = x / alpha."""
    y = x / levels[0][0]
    for (alpha, sigma), (alpha_next, sigma_next) in pairwise(levels):
        t, t_next = sigma / alpha, sigma_next / alpha_next
        slope = (y - denoise(alpha * y, alpha, sigma)) / t
        y = y + (t_next - t) * slope
    return y


def heun(
    x: Array,
    levels: Levels,
    denoise: Denoiser,
    draw: Draw,
    *,
    churned: Levels,
    noise: float,
    uncorrected: int,
) -> Array:
    """Karras et al. 2022, algorithm 2, on y = x / alpha, from the first churned level.

    `churned` is the level that each is raised to; the last `uncorrected` steps are Euler's.
    """
    y = x / churned[0][0]
    for i in range(len(levels) - 1):
        t_hat = churned[i][1] / churned[i][0]
        t, t_next = levels[i][1] / levels[i][0], levels[i + 1][1] / levels[i + 1][0]
        if i > 0 and t_hat > t:
            y = y + math.sqrt(t_hat**2 - t**2) * noise * draw()
        slope = (y - denoise(churned[i][0] * y, *churned[i])) / t_hat
        y_next = y + (t_next - t_hat) * slope
        if i < len(levels) - 1 - uncorrected:
            slope_next = (y_next - denoise(levels[i + 1][0] * y_next, *levels[i + 1])) / t_next
            y_next = y + (t_next - t_hat) * (slope / 2 + slope_next / 2)
        y = y_next
    return y


def dpm_solver_pp(x: Array, levels: Levels, denoise: Denoiser, *, order: int) -> Array:
    """Lu et al. 2022 (DPM-Solver++), multistep of order 2 or 3; first and last step of order 1."""
    half_log_snr = [math.log(alpha / sigma) for alpha, sigma in levels[:-1]]
    outputs: list[Array] = []
    for i, ((alpha, sigma), (alpha_next, sigma_next)) in enumerate(pairwise(levels)):
        outputs.append(denoise(x, alpha, sigma))
        if sigma_next == 0:
            return outputs[-1]
        h = half_log_snr[i + 1] - half_log_snr[i]
        decay = math.exp(-h) - 1
        x = sigma_next / sigma * x - alpha_next * decay * outputs[-1]
        if i == 0:
            continue
        r0 = (half_log_snr[i] - half_log_snr[i - 1]) / h
        d1_0 = (outputs[-1] - outputs[-2]) / r0
        if i == 1 or order == 2:
            x = x - alpha_next * decay / 2 * d1_0
            continue
        r1 = (half_log_snr[i - 1] - half_log_snr[i - 2]) / h
        d1_1 = (outputs[-2] - outputs[-3]) / r1
        d1 = d1_0 + r0 / (r0 + r1) * (d1_0 - d1_1)
        d2 = (d1_0 - d1_1) / (r0 + r1)
        x = x + alpha_next * (decay / h + 1) * d1 - alpha_next * ((decay + h) / h**2 - 0.5) * d2
    return x


def unipc(x: Array, levels: Levels, denoise: Denoiser, *, order: int) -> Array:
    """Zhao et al. 2023, algorithms 5 to 8 with B(h) = e^h - 1; predictor and corrector apart."""
    half_log_snr = [math.log(alpha / sigma) for alpha, sigma in levels[:-1]]
    count = len(levels) - 1
    outputs = [denoise(x, *levels[0])]
    for i in range(1, count):
        (_, sigma), (alpha_next, sigma_next) = levels[i - 1], levels[i]
        h = half_log_snr[i] - half_log_snr[i - 1]
        p = min(order, i, count - i + 1)
        r = [(half_log_snr[i - 1 - m] - half_log_snr[i - 1]) / h for m in range(1, p)]
        differences = [(outputs[i - 1 - m] - outputs[i - 1]) / r[m - 1] for m in range(1, p)]
        base = sigma_next / sigma * x - alpha_next * math.expm1(-h) * outputs[i - 1]
        predicted, corrected = _unipc_weights(h, r), _unipc_weights(h, [*r, 1.0])
        scale = -alpha_next * math.expm1(-h)
        mixed = sum((w * d for w, d in zip(predicted, differences, strict=True)), 0 * x)
        outputs.append(denoise(base + scale * mixed, alpha_next, sigma_next))
        differences.append(outputs[i] - outputs[i - 1])
        mixed = sum((w * d for w, d in zip(corrected, differences, strict=True)), 0 * x)
        x = base + scale * mixed
    return outputs[-1]


def _unipc_weights(h: float, r: list[float]) -> Array:
    """Zhao et al. 2023, theorem 3.1: the rho that solve R rho = n! z phi_{n+1}(z) / (e^z - 1)."""
    if len(r) == 1:
        return np.array([0.5])
    z, count = -h, len(r)
    phi = [sum(z**j / math.factorial(j + n + 1) for j in range(60)) for n in range(1, count + 1)]
    right = [math.factorial(n) * z * phi[n - 1] / math.expm1(z) for n in range(1, count + 1)]
    left = np.array([[value**n for value in r] for n in range(count)]).reshape(count, count)
    return np.linalg.solve(left, np.array(right))


def plms(x: Array, levels: Levels, denoise: Denoiser) -> Array:
    """Liu et al. 2022, eqs. 11 and 12; started by one Heun step instead of Runge-Kutta."""

    def epsilon(x: Array, level: tuple[float, float]) -> Array:
        alpha, sigma = level
        return (x - alpha * denoise(x, alpha, sigma)) / sigma

    def moved(x: Array, noise: Array, i: int) -> Array:
        (alpha, sigma), (alpha_next, sigma_next) = levels[i], levels[i + 1]
        return alpha_next * (x - sigma * noise) / alpha + sigma_next * noise

    e = [epsilon(x, levels[0])]
    x = moved(x, (e[0] + epsilon(moved(x, e[0], 0), levels[1])) / 2, 0)
    for i in range(1, len(levels) - 1):
        e.append(epsilon(x, levels[i]))
        if i == 1:
            noise = (3 * e[-1] - e[-2]) / 2
        elif i == 2:
            noise = (23 * e[-1] - 16 * e[-2] + 5 * e[-3]) / 12
        else:
            noise = (55 * e[-1] - 59 * e[-2] + 37 * e[-3] - 9 * e[-4]) / 24
        x = moved(x, noise, i)
    return x
