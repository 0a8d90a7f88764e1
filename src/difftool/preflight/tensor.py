"""A tensor of an ONNX file: its sizes are possible, its data is in it and whole, and is finite."""

import math
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difftool.preflight.wire import VARINT, WireError, fields, signed, varints

LARGEST_SIZE: Final = (1 << 31) - 1  # of one dimension
_MOST_DIMENSIONS: Final = 16
_CHUNK: Final = 1 << 16  # numbers looked at in one go

# The fields of a TensorProto.
_DIMS, _TYPE, _SEGMENT, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 3, 8, 9, 13, 14
_LISTS: Final = {4: 4, 5: 0, 7: 0, 10: 8, 11: 0}  # of numbers: bytes of one, 0 for a varint
# Bits of an element, by ONNX's number of its type. Strings and complex numbers are in no model.
_BITS: Final = (
    {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}
    | dict.fromkeys((17, 18, 19, 20, 24), 8)
    | dict.fromkeys((21, 22, 23), 4)
)
# Of the floating-point types: which integers hold them, the bits but the sign, and the first
# pattern that is not finite.
_FLOATS: Final = {
    1: ("<u4", 0x7FFFFFFF, 0x7F800000),
    10: ("<u2", 0x7FFF, 0x7C00),
    11: ("<u8", 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000),
    16: ("<u2", 0x7FFF, 0x7F80),
    17: ("u1", 0x7F, 0x7F),
    19: ("u1", 0x7F, 0x7C),
}
_LISTED_FLOATS: Final = {4: 1, 10: 11}  # the types whose lists are their bytes


class TensorError(Exception):
    """What is wrong with a tensor, and the code of it."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def check_tensor(data: memoryview) -> tuple[str, int]:
    """The name of a TensorProto and how many bytes of it are numbers.

    Raises:
        TensorError: its data is elsewhere, not of the size it says, or not finite.
        WireError: it is no message.
    """
    name, kind, dims = "", 0, list[int]()
    raw: memoryview | None = None
    listed = list[tuple[int, int | memoryview]]()
    for number, wire, value in fields(data):
        if number == _DIMS:
            packed = varints(value) if isinstance(value, memoryview) else (value,)
            dims += [signed(size) for size in packed]
        elif number == _TYPE and wire == VARINT and isinstance(value, int):
            kind = value
        elif number == _NAME and isinstance(value, memoryview):
            name = bytes(value).decode(errors="replace")
        elif number == _RAW and isinstance(value, memoryview):
            if raw is not None:
                raise TensorError("has its data twice", "graph-data")
            raw = value
        elif number in _LISTS:
            listed.append((number, value))
        elif number == _EXTERNAL or (number == _LOCATION and value):
            raise TensorError("has its data in another file", "graph-external")
        elif number == _SEGMENT:
            raise TensorError("is a part of a tensor", "graph-data")
        elif number in (_DIMS, _TYPE, _NAME, _RAW):
            raise WireError("a tensor's field is of another type")
    return name, _check(name, kind, dims, raw, listed)


def finite(data: memoryview, kind: int) -> bool:
    """Whether all numbers in little-endian bytes of a type are finite; true of whole numbers."""
    if kind not in _FLOATS:
        return True
    integers, mask, first = _FLOATS[kind]
    numbers: NDArray[np.unsignedinteger] = np.frombuffer(data, integers)
    magnitude = numbers.dtype.type(mask)
    return all(
        int((numbers[start : start + _CHUNK] & magnitude).max()) < first
        for start in range(0, len(numbers), _CHUNK)
    )


def count_of(dims: Iterable[int]) -> int:
    """How many elements a tensor of these sizes has; TensorError where there is no such tensor."""
    sizes = list(dims)
    if len(sizes) > _MOST_DIMENSIONS:
        raise TensorError(f"has {len(sizes)} dimensions", "graph-dimensions")
    for size in sizes:
        if not 0 <= size <= LARGEST_SIZE:
            raise TensorError(f"has a dimension of {size}", "graph-dimensions")
    return math.prod(sizes)


def _check(
    name: str,
    kind: int,
    dims: list[int],
    raw: memoryview | None,
    listed: list[tuple[int, int | memoryview]],
) -> int:
    count = count_of(dims)
    if kind not in _BITS:
        raise TensorError(f"is of the type {kind}, which no model has", "graph-data")
    if raw is not None and listed:
        raise TensorError("has its data twice", "graph-data")
    if raw is not None:
        if len(raw) != (count * _BITS[kind] + 7) // 8:
            raise TensorError(f"of sizes {dims} has {len(raw)} bytes of data", "graph-data")
        if not finite(raw, kind):
            raise TensorError("holds a number that is not finite", "graph-numbers")
        return len(raw)
    if kind in _FLOATS and any(_LISTED_FLOATS.get(number) != kind for number, _ in listed):
        raise TensorError("has its data in an unusual field", "graph-data")
    found = bytes_read = 0
    for number, value in listed:
        elements, size = _listed(number, value, kind)
        found, bytes_read = found + elements, bytes_read + size
    if found != count:
        raise TensorError(f"of sizes {dims} has {found} numbers", "graph-data")
    return bytes_read


def _listed(number: int, value: int | memoryview, kind: int) -> tuple[int, int]:
    """How many numbers a list holds, and their bytes."""
    width = _LISTS[number]
    if isinstance(value, int):
        if width:
            raise WireError("a list of numbers is of another type")
        return 1, 1
    if not width:
        return int(np.count_nonzero(np.frombuffer(value, np.uint8) < 0x80)), len(value)
    if len(value) % width:
        raise WireError("a list of numbers ends within one")
    if not finite(value, kind):
        raise TensorError("holds a number that is not finite", "graph-numbers")
    return len(value) // width, len(value)
