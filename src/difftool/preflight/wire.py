"""The wire format of Protocol Buffers, as far as ONNX uses it: numbered fields, one after another.

Where the format leaves a reader a choice, this one refuses: what it reads must mean one thing.
"""

from collections.abc import Iterator
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

_FIXED: Final = {FIXED64: 8, FIXED32: 4}
_LONGEST: Final = 10  # bytes of a varint
_SIGN: Final = 1 << 63


class WireError(Exception):
    """Bytes that are no message."""


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """The number, wire type and value of each field: an int for VARINT, else its bytes, uncopied.

    WireError where a field ends beyond the data, or is of a type that ONNX has not.
    """
    position, end = 0, len(data)
    while position < end:
        key = data[position]
        position += 1
        if key & 0x80:
            key, position = _varint(data, position - 1)
        number, kind = key >> 3, key & 7
        if not number:
            raise WireError("a field has the number 0")
        if kind == VARINT:
            value, position = _varint(data, position)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, position = _varint(data, position)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise WireError(f"a field has the wire type {kind}")
        if size > end - position:
            raise WireError("a field ends beyond its message")
        yield number, kind, data[position : position + size]
        position += size


def varints(data: memoryview) -> Iterator[int]:
    """The numbers of a packed field."""
    position = 0
    while position < len(data):
        value, position = _varint(data, position)
        yield value


def signed(value: int) -> int:
    """A varint as the int64 that it stands for."""
    return value - (1 << 64) if value >= _SIGN else value


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST):
        if position >= len(data):
            raise WireError("a number ends beyond its message")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >> 64:
                break
            return value, position
    raise WireError("a number has more than 64 bits")
