"""Read a tensor of an ONNX file, with possible sizes and whole, finite data inside the file."""

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.preflight.decode import Message, Refused
from difftool.preflight.parts import Tensor

_BOOL: Final = 9
LARGEST_SIZE: Final = (1 << 31) - 1  # of one dimension
MOST_DIMENSIONS: Final = 16
_CHUNK: Final = 1 << 16  # numbers checked at once, to save memory
_MOST_NUMBERS: Final = 1 << 12  # in a tensor that may be a shape
_MOST_REALS: Final = 64  # in a tensor that may be the scales of a resize

# Bits of an element, by ONNX's number of its type. No model has strings or complex numbers.
BITS: Final = (
    {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}
    | dict.fromkeys((17, 18, 19, 20, 24), 8)
    | dict.fromkeys((21, 22, 23), 4)
)
# By floating-point type: integers of the same size, the mask of all bits but the sign, and the
# first pattern that is not finite.
_FLOATS: Final = {
    1: ("<u4", 0x7FFFFFFF, 0x7F800000),
    10: ("<u2", 0x7FFF, 0x7C00),
    11: ("<u8", 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000),
    16: ("<u2", 0x7FFF, 0x7F80),
    17: ("u1", 0x7F, 0x7F),
    19: ("u1", 0x7F, 0x7C),
    24: ("u1", 0xFF, 0xFF),  # has no sign
}
_FNUZ: Final = (18, 20)  # floating-point types of a byte; only 0x80 is not finite
# By whole-number type: the numpy type that reads raw_data.
WHOLE: Final = {
    2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "u1", 12: "<u4", 13: "<u8",
}  # fmt: skip
_REALS: Final = {1: "<f4", 11: "<f8"}
# By type: the list of numbers that may hold the data instead of raw_data.
_LISTS: Final = (
    {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data"}
    | dict.fromkeys((2, 3, 4, 5, 6, 9), "int32_data")
)  # fmt: skip
_DATA: Final = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def read_tensor(found: Message) -> Tensor:
    """Read a TensorProto; Refused if its data is elsewhere, of another size, or not finite."""
    if found.get("data_location"):
        raise Refused("holds a tensor that has its data in another file", "graph-external")
    name, kind = found.get("name", ""), found.get("data_type", 0)
    if kind not in BITS:
        raise Refused(f"holds a tensor of the type {kind}, which no model has", "graph-data")
    dims = tuple(int(size) for size in found.get("dims", ()))
    count = element_count(dims)
    places = [place for place in _DATA if place in found]
    if len(places) > 1:
        raise Refused("holds a tensor that has its data twice", "graph-data")
    place = places[0] if places else "raw_data"
    data = found.get(place, memoryview(b""))
    if place not in ("raw_data", _LISTS.get(kind)):
        raise Refused("holds a tensor that has its data in an unusual field", "graph-data")
    size = data.nbytes
    if isinstance(data, memoryview):
        if size != (count * BITS[kind] + 7) // 8:
            raise Refused(f"holds a tensor of sizes {dims} in {size} bytes", "graph-data")
        if not finite(data, kind):
            raise Refused("holds a number that is not finite", "graph-numbers")
    elif len(data) != count:
        raise Refused(f"holds a tensor of sizes {dims} in {len(data)} numbers", "graph-data")
    return Tensor(name, kind, dims, size, _numbers(data, kind, count))


def finite(data: memoryview, kind: int) -> bool:
    """Tell if all numbers in little-endian bytes of a type are finite; whole numbers always are."""
    if kind in _FNUZ:
        return 0x80 not in np.frombuffer(data, np.uint8)
    if kind not in _FLOATS:
        return True
    integers, mask, first = _FLOATS[kind]
    numbers: NDArray[np.unsignedinteger] = np.frombuffer(data, integers)
    return all(
        (numbers[start : start + _CHUNK] & mask).max() < first
        for start in range(0, len(numbers), _CHUNK)
    )


def element_count(dims: Iterable[int]) -> int:
    """Return the number of elements of a tensor; Refused if its sizes are impossible."""
    sizes = list(dims)
    if len(sizes) > MOST_DIMENSIONS:
        raise Refused(f"holds a tensor of {len(sizes)} dimensions", "graph-dimensions")
    for size in sizes:
        if not 0 <= size <= LARGEST_SIZE:
            raise Refused(f"holds a tensor with a dimension of {size}", "graph-dimensions")
    return math.prod(sizes)


def _numbers(data: Any, kind: int, count: int) -> NDArray[Any] | None:
    """Return the `Tensor.numbers` of a small tensor, or None."""
    if kind in _REALS and count <= _MOST_REALS:
        return np.frombuffer(data, _REALS[kind]).astype(np.float64)
    if kind not in WHOLE or count > _MOST_NUMBERS:
        return None
    raw = isinstance(data, memoryview)
    numbers: NDArray[Any] = np.frombuffer(data, WHOLE[kind]) if raw else data
    # A list in the file is wider than the type: int32_data also holds the bytes of an int8 tensor.
    exact = numbers.astype(WHOLE[kind]).astype(numbers.dtype)
    if (exact != numbers).any() or (kind == _BOOL and (numbers > 1).any()):
        raise Refused("holds a tensor of numbers that are not of its type", "graph-data")
    if (numbers > np.iinfo(np.int64).max).any():
        return None
    return numbers.astype(np.int64)
