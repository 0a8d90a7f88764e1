"""The four 2x2 kernels that do the work of a 3x3 kernel behind nearest-neighbour doubling.

A pixel of the result depends on only 2x2 pixels of the small image, which doubling repeats. So each
of the four kinds of pixels (even or odd row, even or odd column) is a 2x2 convolution of the small
image whose weights are sums of the 3x3 ones. It is the sub-pixel convolution of Shi et al. (2016,
section 3), derived from trained weights.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# [parity, tap of 2, tap of 3]: 1 if that tap of the 3x3 kernel falls on that small pixel.
_SUMS: Final = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float64)
_ROUNDING: Final = 1e-6  # of sums in float32
_TAPS: Final = np.linalg.pinv(_SUMS.reshape(4, 3)).reshape(3, 2, 2)


def parity_kernels(weight: NDArray[Any]) -> NDArray[np.float32]:
    """Return [2, 2, O, I, 2, 2] from a kernel [O, I, 3, 3]: for even and odd rows, then columns."""
    sums = np.einsum("pai,qbj,ocij->pqocab", _SUMS, _SUMS, weight.astype(np.float64))
    return sums.astype(np.float32)


def whole_kernel(parts: Sequence[NDArray[Any] | None]) -> NDArray[np.float32] | None:
    """Return the kernel [O, I, 3, 3] of four of `parity_kernels`; None if they are of no such one.

    It is the least-squares solution, which evens out how the sums were rounded.
    """
    kernels = [part for part in parts if part is not None and part.shape[2:] == (2, 2)]
    if len(kernels) != 4 or len({kernel.shape for kernel in kernels}) != 1:
        return None
    given = np.stack(kernels).reshape(2, 2, *kernels[0].shape).astype(np.float64)
    weight = np.einsum("ipa,jqb,pqocab->ocij", _TAPS, _TAPS, given)
    if np.abs(parity_kernels(weight) - given).max() > _ROUNDING * np.abs(given).max():
        return None
    return weight.astype(np.float32)
