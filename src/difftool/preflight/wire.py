"""Read the wire format of Protocol Buffers in the one way on which every reader agrees.

The format leaves a reader choices. It may skip unknown fields, keep the low 32 bits of a longer
number, take the last of two values, or merge them. Each choice can hide something from one reader
that another one sees. So only the canonical form is read here: every number in its shortest form,
and only the wire types that ONNX uses. `difftool.preflight.decode` checks the fields of a message.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

_FIXED: Final = {FIXED64: 8, FIXED32: 4}
_LONGEST: Final = 10  # bytes of a varint
_SIGN: Final = 1 << 63


class WireError(Exception):
    """Bytes that are not a message, or not in the canonical form."""


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield each field's number, wire type and value: an int for VARINT, else bytes, not copied.

    WireError if a field ends beyond the data, has a wire type that ONNX does not use, or spends
    more bytes on a number than it needs.
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
        if kind in (VARINT, BYTES):
            if position < end and data[position] < 0x80:  # most numbers have a single byte
                size = data[position]
                position += 1
            else:
                size, position = _varint(data, position)
            if kind == VARINT:
                yield number, kind, size
                continue
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise WireError(f"a field has the wire type {kind}")
        if size > end - position:
            raise WireError("a field ends beyond its message")
        yield number, kind, data[position : position + size]
        position += size


def signed(value: int) -> int:
    """Return the int64 that a varint stands for."""
    return value - (1 << 64) if value >= _SIGN else value


def packed(data: memoryview) -> NDArray[np.uint64]:
    """Read the varints of a packed list that is not empty.

    WireError if one is cut off or not in its shortest form. NumPy reads them all at once: a loop
    over a million numbers would take seconds.
    """
    found = np.frombuffer(data, np.uint8)
    if found[-1] & 0x80:
        raise WireError("a number ends beyond its list")
    ends = np.flatnonzero(found < 0x80)
    begins = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - begins + 1
    last = found[ends]
    if ((last == 0) & (lengths > 1)).any():
        raise WireError("a number is longer than it need be")
    if (lengths > _LONGEST).any() or ((lengths == _LONGEST) & (last > 1)).any():
        raise WireError("a number has more than 64 bits")
    place = np.arange(len(found)) - np.repeat(begins, lengths)
    parts = (found & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(parts, begins)


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
            if not byte and index:
                raise WireError("a number is longer than it need be")
            return value, position
    raise WireError("a number has more than 64 bits")
