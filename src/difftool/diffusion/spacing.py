"""Which levels of a model's noise schedule a sampler visits."""

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.schedules import NoiseSchedule
from difftool.errors import UsageError


def linspace(schedule: NoiseSchedule, steps: int) -> NDArray[np.int64]:
    """`steps` schedule indices from most to least noise, both ends included, evenly spaced.

    One step is the noisiest level alone. UsageError where the schedule has fewer levels.
    """
    levels = len(schedule)
    if not 1 <= steps <= levels:
        raise UsageError(
            f"{steps} steps on a schedule of {levels} levels", f"use 1 to {levels} steps"
        )
    if steps == 1:
        return np.array([levels - 1])
    return np.linspace(levels - 1, 0, steps).round().astype(np.int64)
