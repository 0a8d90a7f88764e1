"""The wire format of Protocol Buffers, read in the one way that every reader agrees on.

The format leaves a reader choices: it may skip what it does not know, keep the low 32 bits of a
longer number, take the last of two values, or merge them. Each choice is a place to hide something
from one reader that another one sees. So only the canonical form is read here: every number in its
shortest form, and no wire type that ONNX does not use. What may stand in a message is the business
of `difftool.preflight.decode`.
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
    """Bytes that are no message, or not in the canonical form."""


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """The number, wire type and value of each field: an int for VARINT, else its bytes, uncopied.

    WireError if a field ends beyond the data, is of a type that ONNX does not use, or says one of
    its numbers in more bytes than it takes.
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
            if position < end and data[position] < 0x80:  # most are as short as that
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
    """A varint as the int64 that it stands for."""
    return value - (1 << 64) if value >= _SIGN else value


def packed(data: memoryview) -> NDArray[np.uint64]:
    """The varints of a packed list. WireError if one is cut off, or is not in its shortest form."""
    found = np.frombuffer(data, np.uint8)
    if len(found) and found[-1] & 0x80:
        raise WireError("a number ends beyond its list")
    ends = np.flatnonzero(found < 0x80)
    begins = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    lengths = ends - begins + 1
    last = found[ends]
    if ((last == 0) & (lengths > 1)).any():
        raise WireError("a number is longer than it need be")
    if (lengths > _LONGEST).any() or ((lengths == _LONGEST) & (last > 1)).any():
        raise WireError("a number has more than 64 bits")
    place = np.arange(len(found)) - np.repeat(begins, lengths)
    parts = (found & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(parts, begins) if len(ends) else parts


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
