"""NCSNv2's rules for noise levels and step size (Song and Ermon 2020, "Improved techniques").

Technique 1: sigma_1 is the largest distance between two data points. Technique 2: neighbouring
levels overlap as a fixed probability says. Technique 4: the Langevin step makes a level end with
the noise that the next one expects.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from difftool.diffusion.schedules import schedule_from_dict
from difftool.errors import UsageError, quoted
from difftool.train.config import TrainConfig

if TYPE_CHECKING:
    from difftool.train.data import Data

OVERLAP = 0.5  # the constant C of technique 2
BUDGET = 1000  # sampling steps that "auto" spends at least, over all levels
AUTO = "auto"
_ITEMS = 10_000  # data items whose distances are looked at


def resolve(config: TrainConfig, data: "Data") -> TrainConfig:
    """`config` with every "auto" of its schedule and sampler replaced by what the data asks for.

    UsageError if that leaves open what "auto" depends on, or the data gives no answer.
    """
    schedule, sampler = dict(config.schedule), dict(config.sampler.arguments)
    if AUTO not in (*schedule.values(), *sampler.values()):
        return config
    if schedule.get("kind") != "geometric" or config.sampler.name != "annealed_langevin":
        raise UsageError(
            '"auto" needs a geometric schedule and the annealed_langevin sampler',
            "see the preset ncsnv2-cifar10",
        )
    if schedule.get("sigma_max") == AUTO:
        schedule["sigma_max"] = largest_distance(data.items)
    # Checks all that there is of the schedule; two is what any number of levels may be here.
    ends = schedule_from_dict({**schedule, **({"levels": 2} if _is_auto(schedule) else {})})
    sigma_min, sigma_max = float(ends.sigma[0]), float(ends.sigma[-1])
    if math.isinf(sigma_max / sigma_min):
        raise UsageError(
            f'no levels "auto" lead from sigma {sigma_max:.3g} to {sigma_min:.3g}',
            "set schedule.sigma_max and schedule.sigma_min nearer to each other",
        )
    if _is_auto(schedule):
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


def _is_auto(schedule: Mapping[str, Any]) -> bool:
    return schedule.get("levels") == AUTO


def largest_distance(items: Tensor) -> float:
    """Technique 1: the largest distance between two items, in the units of training.

    uint8 images count as [0, 1]. Of large sets the first 10 000 items are compared.
    """
    flat = items[:_ITEMS].flatten(1).float()
    scale = 1 / 255 if items.dtype == torch.uint8 else 1.0
    return scale * max(torch.cdist(part, flat).max().item() for part in flat.split(500))


def level_count(dimensions: int, sigma_max: float, sigma_min: float) -> int:
    """Technique 2: how many geometric levels make neighbours overlap by C = 0.5."""
    ratio = level_ratio(dimensions)
    return max(2, 1 + round(math.log(sigma_max / sigma_min) / math.log(ratio)))


def level_ratio(dimensions: int) -> float:
    """The ratio g > 1 of neighbouring sigmas that solves overlap(g, D) = 0.5, by bisection.

    UsageError in 4 dimensions and fewer, if any two levels overlap by more.
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
    """Phi(sqrt(2D)(g-1) + 3g) - Phi(sqrt(2D)(g-1) - 3g): how much of a level its neighbour covers.

    Proposition 2: a D-dimensional Gaussian's radius is close to N(sqrt(D) sigma, sigma^2 / 2).
    """
    shift = math.sqrt(2 * dimensions) * (ratio - 1)
    return _normal_cdf(shift + 3 * ratio) - _normal_cdf(shift - 3 * ratio)


def final_variance(rate: float, ratio: float, steps: int) -> float:
    """s_T^2 / sigma^2 after `steps` Langevin steps at a level entered from the one above it.

    Proposition 3, in the image code's convention: a step is x += rate * sigma^2 * score +
    sqrt(2 rate) * sigma * z. `ratio` is that of neighbouring sigmas.
    """
    kept = (1 - rate) ** 2
    stationary = 2 * rate / (1 - kept)
    return kept**steps * (ratio**2 - stationary) + stationary


def step_size(ratio: float, steps: int, sigma_min: float) -> float:
    """Technique 4: the step size at sigma_min whose `final_variance` is nearest to 1, on a grid."""
    rates = np.geomspace(1e-4, 1, 20_000, endpoint=False)
    errors = [abs(final_variance(rate, ratio, steps) - 1) for rate in rates]
    return float(rates[np.argmin(errors)]) * sigma_min**2


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
