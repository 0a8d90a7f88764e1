"""The levels of a model's noise schedule that a sampler visits."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.calls import require_known
from difftool.diffusion.program import MAX_ROWS
from difftool.diffusion.schedules import NoiseSchedule
from difftool.errors import UsageError

Array = NDArray[np.float64]

LINSPACE: Final = "linspace"
BETWEEN_LEVELS: Final = ("half_log_snr", "karras")
_RHO: Final = 7  # Karras et al. 2022, section 3


def visited(
    schedule: NoiseSchedule,
    steps: int | None,
    spacing: str = LINSPACE,
    *,
    evaluations: Callable[[int], int] = lambda steps: steps,
    asked: int | None = None,
) -> list[float]:
    """Return `steps` schedule indices from most to least noise; a single one is the noisiest.

    If `steps` is None there is one for each level.

    - "linspace": whole and evenly spaced, both ends included
    - "leading", "trailing": whole, L / steps apart, counted from the least or the most noise
      (Lin et al. 2024, table 2)
    - "quadratic": squares of evenly spaced roots, up to 0.8 L (the released CIFAR-10 settings of
      Song et al. 2021a); indices that its rounding repeats are visited once
    - "half_log_snr": evenly spaced in half_log_snr, also between levels (Lu et al. 2022)
    - "karras": (sigma / alpha)^(1/7) evenly spaced, also between levels (Karras et al. 2022, eq. 5)

    Some samplers evaluate the network more than once at a level. So that errors speak in the
    user's numbers, `evaluations` maps a number of levels to one of evaluations, and `asked` is the
    number that the user gave.

    Raises:
        UsageError: there is no such spacing, or too few or too many steps for it.
    """
    require_known("spacing", spacing, _SPACINGS)
    levels = len(schedule)
    steps = levels if steps is None else steps
    limit = MAX_ROWS if spacing in BETWEEN_LEVELS else levels
    count = evaluations(steps) if asked is None else asked
    if not 1 <= steps <= limit:
        raise UsageError(
            f"{count} steps on a schedule of {levels} levels",
            f"use {evaluations(1)} to {evaluations(limit)} steps; annealed_langevin takes more",
        )
    if count > MAX_ROWS:
        raise UsageError(f"{count} steps", f"use at most {MAX_ROWS}")
    if steps == 1:
        return [float(levels - 1)]
    # Rounding may repeat an index; `unique` visits it once, and sorts from least to most noise.
    indices: list[float] = np.unique(_SPACINGS[spacing](schedule, steps))[::-1].tolist()
    return indices


def steps_or(steps: int | None, usual: int, schedule: NoiseSchedule) -> int:
    """Return `steps` or, if it is None, the usual number, at most the schedule's levels."""
    return min(usual, len(schedule)) if steps is None else steps


def transitions(levels: list[float]) -> list[tuple[float, float | None]]:
    """Pair each level with the next; after the last comes None, the clean sample."""
    return list(zip(levels, [*levels[1:], None], strict=True))


def _karras(schedule: NoiseSchedule, steps: int) -> Array:
    least, most = np.exp(-schedule.half_log_snr[[0, -1]] / _RHO)
    return schedule.find(-_RHO * np.log(np.linspace(least, most, steps)))


_SPACINGS: Final[Mapping[str, Callable[[NoiseSchedule, int], Array]]] = {
    LINSPACE: lambda schedule, steps: np.linspace(0, len(schedule) - 1, steps).round(),
    "leading": lambda schedule, steps: np.arange(0.0, steps) * (len(schedule) // steps),
    "trailing": lambda schedule, steps: (
        (len(schedule) - np.arange(0.0, steps) * (len(schedule) / steps)).round() - 1
    ),
    "quadratic": lambda schedule, steps: np.floor(
        np.linspace(0, np.sqrt(0.8 * len(schedule)), steps) ** 2
    ),
    "half_log_snr": lambda schedule, steps: schedule.find(
        np.linspace(schedule.half_log_snr[0], schedule.half_log_snr[-1], steps)
    ),
    "karras": _karras,
}
