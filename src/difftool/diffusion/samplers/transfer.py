"""What samplers share: levels as (alpha, sigma), and the exact step between two of them."""

import math
from typing import Final

Level = tuple[float, float]

KEEP_DENOISED: Final = (0.0, 1.0)  # the (e, f) that write D into the history


def transfer(level: Level, target: Level, fresh: float = 0.0) -> tuple[float, float]:
    """(a, b) that carry x to `target` by D alone: a * x + b * D = alpha' * D + kept * epsilon.

    epsilon is the noise in x by D's account. kept is the target's sigma, less the std `fresh` of
    noise that the row adds (Song et al. 2021a, eq. 12).
    """
    (alpha_s, sigma_s), (alpha_t, sigma_t) = level, target
    a = math.sqrt(max(sigma_t**2 - fresh**2, 0.0)) / sigma_s
    return a, alpha_t - a * alpha_s


def ratio(level: Level) -> float:
    """sigma / alpha, the std of the noise in x / alpha."""
    return level[1] / level[0]


def gap(level: Level, target: Level) -> float:
    """How much half_log_snr grows from one level to another, both noisy."""
    return math.log(ratio(level) / ratio(target))


def fresh_noise(level: Level, target: Level, eta: float) -> float:
    """Std of the noise of an SDE step: sigma' * sqrt(1 - exp(-2 * eta * gap)); none at the end.

    With eta=1 it is the posterior's, as in DDPM with the small variance.
    """
    return target[1] * math.sqrt(1 - (ratio(target) / ratio(level)) ** (2 * eta))


def forward(level: Level, arrival: Level) -> tuple[float, float]:
    """What x is multiplied by and the std of what it gains, to come from a level to a noisier."""
    grown = arrival[0] / level[0]
    return grown, math.sqrt(max(arrival[1] ** 2 - (grown * level[1]) ** 2, 0.0))
