"""Decode messages of onnx.proto to dictionaries of their fields, by name.

The dictionary holds exactly what a parser of Protocol Buffers sees of the file. A field is refused
if it is not in the schema, has another type there, or is there twice. So the judge and a runtime
see the same model.
"""

from typing import Any, Final

import numpy as np

from difftool.preflight.schema import MESSAGES, ONE_OF, Field, Never
from difftool.preflight.wire import BYTES, WireError, fields, packed, signed

Message = dict[str, Any]

_INT32: Final = 1 << 31
_DEEPEST: Final = 40  # messages within messages
_LONGEST_LIST: Final = 1 << 20  # bytes of a list of whole numbers; these are sizes, not weights


class Refused(Exception):
    """A refused part of a file: what the file does, as the end of a sentence, and its code."""

    def __init__(self, what: str, code: str) -> None:
        super().__init__(what)
        self.what, self.code = what, code


class Decoder:
    """A decoder of messages with at most `fields` fields in all.

    A field becomes an int, a float's or double's bytes, bytes, a str or a dictionary. A repeated
    field becomes a list of them. Repeated whole numbers become an int64 or uint64 array, and
    repeated floats and doubles the bytes of all of them.
    """

    def __init__(self, fields: int) -> None:
        self._left = fields

    def decode(self, data: memoryview, kind: str, depth: int = 0) -> Message:
        """Return the message of a kind; Refused if it may not be there, WireError if it is none."""
        if depth > _DEEPEST:
            raise Refused("nests too deep", "graph-limit")
        schema, found, lists = MESSAGES[kind], Message(), list[Field]()
        for number, wire, value in fields(data):
            # A file of a few MB could otherwise hold millions of fields, each a Python object.
            self._left -= 1
            if self._left < 0:
                raise Refused("has too many parts", "graph-limit")
            field = schema.get(number)
            if field is None:
                raise WireError(f"{kind} has a field {number}, which is not ONNX's")
            if isinstance(field, Never):
                raise Refused(field.what, field.code)
            name = field.name
            if not field.many:
                if name in found:
                    raise WireError(f"{kind} has two of the field {name}")
                found[name] = self._value(field, wire, value, depth)
                continue
            if name not in found:
                found[name] = []
                if field.numbers:
                    lists.append(field)
            several = field.numbers and wire == BYTES
            item = _list(field, value) if several else self._value(field, wire, value, depth)
            found[name].append(item)
        for field in lists:
            found[field.name] = _joined(field, found[field.name])
        if kind in ONE_OF and len(found.keys() & ONE_OF[kind]) > 1:
            raise WireError(f"{kind} is of two kinds at once")
        return found

    def _value(self, field: Field, wire: int, value: int | memoryview, depth: int) -> Any:
        if wire != field.wire:
            raise WireError(f"the field {field.name} is of another type")
        if isinstance(value, int):
            return _whole(field, value)
        if field.message:
            return self.decode(value, field.kind, depth + 1)
        return _text(value) if field.kind == "text" else value


def _list(field: Field, value: Any) -> Any:
    """Return the numbers of a packed list."""
    if not len(value):
        raise WireError(f"the list {field.name} is there and empty")
    if field.kind in ("float", "double"):
        if len(value) % (4 if field.kind == "float" else 8):
            raise WireError(f"the list {field.name} ends within a number")
        return value
    if len(value) > _LONGEST_LIST:
        raise Refused(f"holds {len(value)} bytes in the list {field.name}", "graph-limit")
    numbers = packed(value)
    if field.kind == "uint64":
        return numbers
    numbers = numbers.astype(np.int64)  # this keeps the bits
    if field.kind == "int32" and ((numbers < -_INT32) | (numbers >= _INT32)).any():
        raise WireError(f"a number of {field.name} has more than 32 bits")
    return numbers


def _joined(field: Field, values: list[Any]) -> Any:
    """Join the numbers of a repeated field, which come alone and in packed lists."""
    if field.kind in ("float", "double"):
        return values[0] if len(values) == 1 else memoryview(b"".join(values))
    dtype = np.uint64 if field.kind == "uint64" else np.int64
    parts = [np.array([v], dtype) if isinstance(v, int) else v for v in values]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _whole(field: Field, value: int) -> int:
    if field.kind == "uint64":
        return value
    number = signed(value)
    if field.kind == "int32" and not -_INT32 <= number < _INT32:
        raise WireError(f"the field {field.name} has more than 32 bits")
    if field.last is not None and not 0 <= number <= field.last:
        raise WireError(f"the field {field.name} is {number}, which says nothing")
    return number


def _text(value: memoryview) -> str:
    try:
        text = str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise WireError("a name is not UTF-8") from error
    if "\0" in text:  # some readers take it for the end of the name
        raise WireError("a name holds the character 0")
    return text
