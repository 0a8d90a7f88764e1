"""Tensors hold numbers of their type, and all of them are finite."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from difftool.preflight.decode import Decoder, Refused
from difftool.preflight.parts import Tensor
from difftool.preflight.tensor import BITS, finite, read_tensor


def read(tensor: TensorProto) -> Tensor:
    data = memoryview(tensor.SerializeToString())
    return read_tensor(Decoder(fields=100).decode(data, "TensorProto"))


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


@pytest.mark.parametrize("wrong", [{"raw_data": b"\2"}, {"int32_data": [2]}, {"int32_data": [256]}])
def test_a_truth_value_is_0_or_1(wrong: dict[str, Any]) -> None:
    """Runtimes make different numbers of others."""
    assert read(TensorProto(data_type=TensorProto.BOOL, dims=[1], raw_data=b"\1")).numbers == [1]
    with pytest.raises(Refused, match="not of its type"):
        read(TensorProto(data_type=TensorProto.BOOL, dims=[1], **wrong))


def test_numbers_beyond_int64_are_not_followed() -> None:
    for number, known in ((2**63 - 1, [2**63 - 1]), (2**63, None)):
        tensor = helper.make_tensor("t", TensorProto.UINT64, [1], [number])
        assert read(tensor).numbers == known
