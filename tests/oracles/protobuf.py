"""Read an ONNX file by parsers of Protocol Buffers, in the form of `difftool.preflight.decode`.

Two are asked: that of Python's protobuf, which is strict, and C++'s, which runtimes are built with.
"""

import struct
from typing import Any

import numpy as np
import onnx
import onnx.onnx_cpp2py_export as native
from google.protobuf import unknown_fields
from google.protobuf.descriptor import FieldDescriptor


def by_python(data: bytes) -> dict[str, Any] | None:
    """Return what Python's parser sees; None if it refuses the file."""
    try:
        return _tree(onnx.load_from_string(data))
    except Exception:  # DecodeError, whose module differs from version to version
        return None


def by_cpp(data: bytes) -> dict[str, Any] | None:
    """Return what C++'s parser sees, as onnx's C++ code writes it again; None if it refuses it."""
    try:
        written = native.inliner.inline_local_functions(data, False)
    except Exception:
        return None
    return _tree(onnx.load_from_string(written))


def plain(value: Any) -> Any:
    """Return what the decoder gives, with bytes and lists that can be compared."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, memoryview):
        return bytes(value)
    return value.tolist() if isinstance(value, np.ndarray) else value


def _tree(message: Any) -> dict[str, Any]:
    assert not len(unknown_fields.UnknownFieldSet(message)), "there are fields that it skips"
    found = {}
    for field, value in message.ListFields():
        many = field.is_repeated
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            found[field.name] = [_tree(item) for item in value] if many else _tree(value)
        elif field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
            letter = "f" if field.type == FieldDescriptor.TYPE_FLOAT else "d"
            numbers = value if many else [value]
            found[field.name] = b"".join(struct.pack(f"<{letter}", item) for item in numbers)
        else:
            found[field.name] = list(value) if many else value
    return found
