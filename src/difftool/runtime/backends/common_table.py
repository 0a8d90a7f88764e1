"""The common table of samples that share steps: the rows written to it, and how it grows."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.columns import Column
from difftool.runtime.backends.prepare import Prepared

_FEWEST: Final = 256  # rows and conds that there is room for at first


def placed_rows(begin: Prepared, cond: int) -> NDArray[np.float32]:
    """Return the rows of one sample, whose outputs of the conditioner begin at `cond`."""
    rows = begin.rows.table.copy()
    rows[:, [Column.COND, Column.NULL_COND]] += cond
    return rows.astype(np.float32)


def room_for(wanted: int, has: int = 0) -> int:
    """Return how much room to have for so many rows: twice as much each time."""
    return has if wanted <= has else max(_FEWEST, 1 << (wanted - 1).bit_length())


def padded(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array in the first corner of a larger one of zeros."""
    larger = np.zeros(shape, array.dtype)
    larger[tuple(slice(0, size) for size in array.shape)] = array
    return larger


def batch_sizes(most: int) -> list[int]:
    """Return the sizes of steps that are prepared for at most so many samples."""
    return sorted({most, *(1 << power for power in range(most.bit_length()))})
