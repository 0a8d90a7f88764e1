"""A value before its graph runs: its type and sizes and, if it is small, its numbers."""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from difftool.preflight.tensor import BITS, WHOLE

Shape = tuple[int, ...]
Numbers = NDArray[Any]  # of int64, float32 or float64

# ONNX's numbers of its types.
FLOAT, UINT8, INT8, INT32, INT64, BOOL, DOUBLE = 1, 2, 3, 6, 7, 9, 11

# The smallest and the largest number of each whole-number type. No shape needs more than int64.
RANGES: Final = {
    kind: (int(np.iinfo(dtype).min), min(int(np.iinfo(dtype).max), 2**63 - 1))
    for kind, dtype in WHOLE.items()
} | {BOOL: (0, 1)}
REALS: Final[dict[int, type[np.float32] | type[np.float64]]] = {
    FLOAT: np.float32,
    DOUBLE: np.float64,
}

# The most numbers of a value that are followed: whole ones make shapes, real ones make scales.
MOST_WHOLE: Final = 1024
MOST_REAL: Final = 64


class Sized(NamedTuple):
    """A value. `numbers`, in its shape, are int64 for all whole numbers and truth values.

    `constant` is True if the value depends at most on the sizes of the graph's inputs.
    """

    kind: int
    shape: Shape
    constant: bool = False
    numbers: Numbers | None = None


def byte_count(kind: int, shape: Shape) -> int:
    """Return the bytes of a value, whose type must be one of BITS."""
    return (math.prod(shape) * BITS[kind] + 7) // 8


def is_small(kind: int, shape: Shape) -> bool:
    """Tell if the numbers of such a value are followed."""
    if kind in RANGES:
        return math.prod(shape) <= MOST_WHOLE
    return kind in REALS and math.prod(shape) <= MOST_REAL
