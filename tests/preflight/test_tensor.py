"""Tensors that hold a number that is not finite are refused, whatever their type."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from difftool.preflight.tensor import BITS, finite


@pytest.mark.parametrize("kind", BITS, ids=TensorProto.DataType.Name)
def test_what_is_not_finite_is_found(kind: int) -> None:
    """Every pattern of the first 16 bits is judged as its conversion to float64 is."""
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    lower = max(0, 8 * dtype.itemsize - 16)  # bits
    patterns = np.arange(1 << min(16, 8 * dtype.itemsize), dtype=np.uint64) << np.uint64(lower)
    patterns = np.concatenate([patterns, patterns | np.uint64((1 << lower) - 1)])
    numbers = patterns.astype(f"<u{dtype.itemsize}").view(dtype)
    with np.errstate(all="ignore"):
        whole = np.isfinite(numbers.astype(np.float64))
    assert finite(memoryview(numbers[whole].tobytes()), kind)
    for number in numbers[~whole]:
        assert not finite(memoryview(number.tobytes()), kind)
