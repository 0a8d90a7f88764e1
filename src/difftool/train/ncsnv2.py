"""NCSNv2's rules for noise levels and step size (Song and Ermon 2020, "Improved techniques").

Technique 1: sigma_1 is the largest distance between two data points. Technique 2: neighbouring
levels overlap with a fixed probability. Technique 4: the Langevin step size makes each level end
with the noise that the next one expects.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from difftool.diffusion.schedules import schedule_from_dict
from difftool.errors import UsageError, quoted
from difftool.train.config import TrainConfig

if TYPE_CHECKING:
    from difftool.train.data import Data

OVERLAP = 0.5  # the constant C of technique 2
BUDGET = 1000  # the least number of sampling steps that "auto" gives, over all levels
AUTO = "auto"
_ITEMS = 10_000  # data items whose distances are compared


def resolve(config: TrainConfig, data: "Data") -> TrainConfig:
    """Replace every "auto" of a configuration's schedule and sampler by the number for the data.

    UsageError if other numbers on which it depends are missing, or the data gives no answer.
    """
    schedule, sampler = dict(config.schedule), dict(config.sampler.arguments)
    if AUTO not in (*schedule.values(), *sampler.values()):
        return config
    if schedule.get("kind") != "geometric" or config.sampler.name != "annealed_langevin":
        raise UsageError(
            '"auto" needs a geometric schedule and the annealed_langevin sampler',
            "start from the preset ncsnv2-cifar10",
        )
    if schedule.get("sigma_max") == AUTO:
        schedule["sigma_max"] = largest_distance(data.items)
    # This checks the schedule. Only its ends are needed, so two levels stand in for "auto".
    open_levels = schedule.get("levels") == AUTO
    ends = schedule_from_dict({**schedule, **({"levels": 2} if open_levels else {})})
    sigma_min, sigma_max = float(ends.sigma[0]), float(ends.sigma[-1])
    if math.isinf(sigma_max / sigma_min):
        raise UsageError(
            f'no levels "auto" lead from sigma {sigma_max:.3g} to {sigma_min:.3g}',
            "set schedule.sigma_max and schedule.sigma_min nearer to each other",
        )
    if open_levels:
        schedule["levels"] = level_count(math.prod(data.shape), sigma_max, sigma_min)
    levels = schedule["levels"]
    if sampler.get("steps") == AUTO:
        sampler["steps"] = levels * math.ceil(BUDGET / levels)
    if sampler.get("step_size") == AUTO:
        steps = sampler.get("steps")
        if type(steps) is not int or steps < levels or levels < 2:
            raise UsageError(
                f'step_size "auto" with {levels} levels and steps {quoted(steps)}',
                'give at least 2 levels and a step for each, or steps "auto"',
            )
        ratio = (sigma_max / sigma_min) ** (1 / (levels - 1))
        sampler["step_size"] = step_size(ratio, steps // levels, sigma_min)
    resolved = config.sampler.model_copy(update={"arguments": sampler})
    return config.model_copy(update={"schedule": schedule, "sampler": resolved})


def largest_distance(items: Tensor) -> float:
    """Return the largest distance between two items, in the units of training (technique 1).

    uint8 images count as [0, 1]. In large sets only the first 10 000 items are compared.
    """
    flat = items[:_ITEMS].flatten(1).float()
    scale = 1 / 255 if items.dtype == torch.uint8 else 1.0
    return scale * max(torch.cdist(part, flat).max().item() for part in flat.split(500))


def level_count(dimensions: int, sigma_max: float, sigma_min: float) -> int:
    """Return the number of geometric levels whose neighbours overlap by C = 0.5 (technique 2)."""
    ratio = level_ratio(dimensions)
    return max(2, 1 + round(math.log(sigma_max / sigma_min) / math.log(ratio)))


def level_ratio(dimensions: int) -> float:
    """Return the ratio g > 1 of neighbouring sigmas that solves overlap(g, D) = 0.5, by bisection.

    UsageError in 4 dimensions and fewer, in which any two levels overlap by more.
    """
    if 2 * dimensions <= 9:
        raise UsageError(
            f'levels "auto" means nothing in {dimensions} dimensions', "set schedule.levels"
        )
    low, high = 1.0, 2.0
    while overlap(high, dimensions) > OVERLAP:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if overlap(middle, dimensions) > OVERLAP else (low, middle)
    return low


def overlap(ratio: float, dimensions: int) -> float:
    """Return the share of a level that its neighbour covers.

    It is Phi(sqrt(2D)(g-1) + 3g) - Phi(sqrt(2D)(g-1) - 3g), since by proposition 2 the radius of a
    D-dimensional Gaussian is close to N(sqrt(D) sigma, sigma^2 / 2).
    """
    shift = math.sqrt(2 * dimensions) * (ratio - 1)
    return _normal_cdf(shift + 3 * ratio) - _normal_cdf(shift - 3 * ratio)


def final_variance(rate: float, ratio: float, steps: int) -> float:
    """Return s_T^2 / sigma^2 after `steps` Langevin steps at a level that follows the one above.

    This is proposition 3 in the image code's convention: a step is x += rate * sigma^2 * score +
    sqrt(2 rate) * sigma * z. `ratio` is that of neighbouring sigmas.
    """
    kept = (1 - rate) ** 2
    stationary = 2 * rate / (1 - kept)
    return kept**steps * (ratio**2 - stationary) + stationary


def step_size(ratio: float, steps: int, sigma_min: float) -> float:
    """Return the step size at sigma_min whose `final_variance` is nearest to 1 (technique 4).

    It is the best one of a fine grid.
    """
    rates = np.geomspace(1e-4, 1, 20_000, endpoint=False)
    errors = [abs(final_variance(rate, ratio, steps) - 1) for rate in rates]
    return float(rates[np.argmin(errors)]) * sigma_min**2


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
