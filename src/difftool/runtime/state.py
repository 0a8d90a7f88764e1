"""A run as it is seen while it goes on."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difftool.runtime.protocols import Batch

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class State:
    """A run after `step` of `steps` evaluations of samples `first` .. `first` + N."""

    step: int
    steps: int
    first: int
    _batch: Batch
    _slots: slice  # those of the batch that are not padding

    @property
    def x(self) -> Floats:
        """Return the state, float32 [N, *S]: a read-only view that the next row overwrites."""
        return _read_only(self._batch.x[self._slots])

    @property
    def denoised(self) -> Floats:
        """Return the estimate of the clean samples, float32 [N, *S]: a view like `x`."""
        return _read_only(self._batch.denoised[self._slots])


# Is called with a state; the run is cancelled if it returns False.
Hook = Callable[[State], bool | None]


def _read_only(array: Floats) -> Floats:
    view = array.view()
    view.flags.writeable = False
    return view
