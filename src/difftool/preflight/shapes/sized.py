"""What is known of a value before a graph runs: its type and sizes, and a small one's numbers."""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from difftool.preflight.tensor import BITS

Shape = tuple[int, ...]
Numbers = NDArray[Any]  # of int64, float32 or float64

# ONNX's numbers of its types.
FLOAT, UINT8, INT8, INT32, INT64, BOOL, DOUBLE = 1, 2, 3, 6, 7, 9, 11

# The smallest and the largest number of each type of whole numbers; those beyond int64 are in no
# shape.
RANGES: Final = {
    2: (0, 2**8 - 1),
    3: (-(2**7), 2**7 - 1),
    4: (0, 2**16 - 1),
    5: (-(2**15), 2**15 - 1),
    6: (-(2**31), 2**31 - 1),
    7: (-(2**63), 2**63 - 1),
    9: (0, 1),
    12: (0, 2**32 - 1),
    13: (0, 2**63 - 1),
}
REALS: Final[dict[int, type[np.float32] | type[np.float64]]] = {
    FLOAT: np.float32,
    DOUBLE: np.float64,
}

# So many numbers of a value are followed: shapes are made of whole ones, and scales of real ones.
MOST_WHOLE: Final = 1024
MOST_REAL: Final = 64


class Sized(NamedTuple):
    """A value. `numbers`, in its shape, are int64 for all whole numbers and truth values.

    `constant` is whether it depends on no input of the graph but for that input's sizes.
    """

    kind: int
    shape: Shape
    constant: bool = False
    numbers: Numbers | None = None


def bytes_of(kind: int, shape: Shape) -> int:
    """Bytes of a value; the type must be one of BITS."""
    return (math.prod(shape) * BITS[kind] + 7) // 8


def is_small(kind: int, shape: Shape) -> bool:
    """Whether the numbers of such a value are followed."""
    if kind in RANGES:
        return math.prod(shape) <= MOST_WHOLE
    return kind in REALS and math.prod(shape) <= MOST_REAL
