"""Levels as (alpha, sigma), and the exact step between two of them, which samplers share."""

import math
from typing import Final

Level = tuple[float, float]

KEEP_DENOISED: Final = (0.0, 1.0)  # the (e, f) that write D into the history


def transfer(level: Level, target: Level, fresh: float = 0.0) -> tuple[float, float]:
    """Return (a, b) that carry x to `target`: a * x + b * D = alpha' * D + kept * epsilon.

    epsilon is the noise that D leaves in x, (x - alpha * D) / sigma. The row adds noise of std
    `fresh`, and kept^2 + fresh^2 is the target's sigma^2 (Song et al. 2021a, eq. 12).
    """
    (alpha_s, sigma_s), (alpha_t, sigma_t) = level, target
    a = math.sqrt(max(sigma_t**2 - fresh**2, 0.0)) / sigma_s
    return a, alpha_t - a * alpha_s


def ratio(level: Level) -> float:
    """Return sigma / alpha, the std of the noise in x / alpha."""
    return level[1] / level[0]


def gap(level: Level, target: Level) -> float:
    """Return the growth of half_log_snr from one noisy level to another."""
    return math.log(ratio(level) / ratio(target))


def fresh_noise(level: Level, target: Level, eta: float) -> float:
    """Return the std of an SDE step's noise, sigma' * sqrt(1 - exp(-2 * eta * gap)).

    It is 0 for the clean sample. With eta=1 it is the posterior's, as in DDPM with the small
    variance.
    """
    return target[1] * math.sqrt(1 - (ratio(target) / ratio(level)) ** (2 * eta))


def forward(level: Level, arrival: Level) -> tuple[float, float]:
    """Return the factor on x and the std of the added noise that lead to a noisier level."""
    grown = arrival[0] / level[0]
    return grown, math.sqrt(max(arrival[1] ** 2 - (grown * level[1]) ** 2, 0.0))
