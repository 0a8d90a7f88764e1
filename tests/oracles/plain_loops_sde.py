"""Samplers that draw noise, as the papers write them: stateful float64 loops; the oracles.

`levels` are (alpha, sigma) from most to least noise, and then the clean end (1, 0).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tests.oracles.plain_loops import Array, Denoiser, Draw
from tests.oracles.plain_loops_ode import Levels


def euler_ancestral(
    x: Array, levels: Levels, denoise: Denoiser, draw: Draw, *, eta: float
) -> Array:
    """Euler on y = x / alpha down to sigma_down, then up by fresh noise to the next level."""
    y = x / levels[0][0]
    for (alpha, sigma), (alpha_next, sigma_next) in pairwise(levels):
        t, t_next = sigma / alpha, sigma_next / alpha_next
        up = eta * math.sqrt(t_next**2 * (t**2 - t_next**2) / t**2)
        down = math.sqrt(t_next**2 - up**2)
        y = y + (y - denoise(alpha * y, alpha, sigma)) / t * (down - t)
        if up:
            y = y + up * draw()
    return y


def sde_dpm_solver_pp(
    x: Array, levels: Levels, denoise: Denoiser, draw: Draw, *, eta: float
) -> Array:
    """Lu et al. 2022 (DPM-Solver++), eq. 19, second order, on y = x / alpha."""
    y = x / levels[0][0]
    previous: tuple[Array, float] | None = None
    for (alpha, sigma), (alpha_next, sigma_next) in pairwise(levels):
        t, t_next = sigma / alpha, sigma_next / alpha_next
        output = denoise(alpha * y, alpha, sigma)
        if t_next == 0:
            return output
        h = math.log(t) - math.log(t_next)
        shrink = math.exp(-h * (1 + eta))
        y = shrink * y + (1 - shrink) * output
        if previous is not None:
            slope = (output - previous[0]) / previous[1]  # of D over half_log_snr
            y = y + (1 - shrink) * h / 2 * slope
        if eta:
            y = y + t_next * math.sqrt(1 - math.exp(-2 * eta * h)) * draw()
        previous = output, h
    return y


def consistent(
    x: Array, sigmas: Sequence[float], denoise: Denoiser, draw: Draw, *, eta: float
) -> Array:
    """Jolicoeur-Martineau et al. 2021, algorithm 2, for a network that predicts sigma * score."""
    for sigma, following in pairwise(sigmas):
        scaled_score = (denoise(x, 1.0, sigma) - x) / sigma
        x = x + eta * sigma * scaled_score
        beta = math.sqrt(1 - ((1 - eta) / (following / sigma)) ** 2)
        x = x + following * beta * draw()
    return x + sigmas[-1] ** 2 * (denoise(x, 1.0, sigmas[-1]) - x) / sigmas[-1] ** 2


def score_sde(
    x: Array,
    sigmas: Sequence[float],
    denoise: Denoiser,
    draw: Draw,
    *,
    predictor: str,
    taus: Sequence[float] = (),
    corrections: int = 0,
) -> Array:
    """Song et al. 2021, algorithm 2 for VE; `taus` are each level's Langevin step size.

    The predictor is eq. 46 ("reverse_diffusion"), eq. 47 ("probability_flow") or eq. 4
    ("ancestral"). The last one's mean is the sample.
    """
    for i, (sigma, following) in enumerate(pairwise([*sigmas, 0.0])):

        def score(x: Array, sigma: float = sigma) -> Array:
            return (denoise(x, 1.0, sigma) - x) / sigma**2

        for _ in range(corrections):
            gradient = score(x)
            x = x + taus[i] * gradient + math.sqrt(2 * taus[i]) * draw()
        gained = sigma**2 - following**2
        if predictor == "probability_flow":
            x = x + gained * score(x) / (1 if following == 0 else 2)
            continue
        x = x + gained * score(x)
        if following:
            ancestral = following**2 * gained / sigma**2
            x = x + math.sqrt(ancestral if predictor == "ancestral" else gained) * draw()
    return x


def norm_corrected(
    y: Array,
    levels: Levels,
    denoise: Denoiser,
    draw: Draw,
    *,
    snr: float,
    corrections: int,
    over_batch: bool,
) -> Array:
    """Song et al. 2021, algorithms 4 and 5, each followed by eq. 46 on y = x / alpha.

    `over_batch` takes the norms' means, as "we take the average of the norms over the batch".
    """
    x = levels[0][0] * y
    for (alpha, sigma), (alpha_next, sigma_next) in pairwise(levels):
        for _ in range(corrections):
            score = (alpha * denoise(x, alpha, sigma) - x) / sigma**2
            z = draw()
            norms = [np.linalg.norm(part, axis=1, keepdims=True) for part in (z, score)]
            if over_batch:
                norms = [norm.mean() for norm in norms]
            kept = (alpha / alpha_next) ** 2  # 1 - beta
            epsilon = 2 * kept * (snr * norms[0] / norms[1]) ** 2
            x = x + epsilon * score + np.sqrt(2 * epsilon) * z
        t, t_next = sigma / alpha, sigma_next / alpha_next
        y = x / alpha
        y = y + (t**2 - t_next**2) * (denoise(x, alpha, sigma) - y) / t**2
        if t_next:
            y = y + math.sqrt(t**2 - t_next**2) * draw()
        x = alpha_next * y
    return x


def repaint(
    x: Array, levels: Levels, denoise: Denoiser, draw: Draw, *, jump: int, resamples: int
) -> tuple[Array, list[Array]]:
    """Lugmayr et al. 2022, algorithm 1 without a mask, with the times of its appendix B.

    Time t counts levels from the least noise. Also the noise of each step down and of the steps
    up after it, as one standard normal.
    """
    at = dict(enumerate(reversed(levels), start=-1))  # time -1 is clean
    jumps = dict.fromkeys(range(0, len(levels) - 1 - jump, jump), resamples - 1)
    t, folded = len(levels) - 2, []
    while t >= 0:
        (alpha, sigma), (alpha_next, sigma_next) = at[t], at[t - 1]
        ratio = alpha / alpha_next
        variance = sigma**2 - (ratio * sigma_next) ** 2  # of the forward step, beta
        mean = ratio * sigma_next**2 / sigma**2 * x
        mean = mean + alpha_next * variance / sigma**2 * denoise(x, alpha, sigma)
        std = sigma_next / sigma * math.sqrt(variance)
        noise = std * draw() if sigma_next else 0 * x
        x, t = mean + noise, t - 1
        if jumps.get(t):
            jumps[t] -= 1
            for _ in range(jump):
                (alpha, sigma), (alpha_up, sigma_up) = at[t], at[t + 1]
                ratio = alpha_up / alpha
                gained = math.sqrt(sigma_up**2 - (ratio * sigma) ** 2)
                z = draw()
                x, noise = ratio * x + gained * z, ratio * noise + gained * z
                std, t = math.hypot(ratio * std, gained), t + 1
        folded.append(noise / std if std else noise)
    return x, folded
