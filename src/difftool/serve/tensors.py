"""Tensors of the v2 protocol: as JSON, or as raw bytes behind the JSON of a body.

Source: the Open Inference Protocol (https://github.com/kserve/open-inference-protocol) and its
extension for binary tensors, docs/protocol/extension_binary_data.md of Triton's server.
"""

import math
import zlib
from collections.abc import Collection, Sequence
from itertools import chain
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from difftool.serve.asked import too_large
from difftool.serve.problems import Problem

_TYPES: Final = {
    "BOOL": np.dtype("?"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
_PREFIX: Final = 4  # bytes of the length of a text
# zlib's window bits: a gzip file, or a zlib stream, which HTTP calls deflate.
_ENCODINGS: Final = {"gzip": 31, "deflate": 15}

Datatype = Literal[
    "BOOL",
    "BYTES",
    "FP16",
    "FP32",
    "FP64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class TensorParameters(_Body):
    """Where a tensor's numbers are, if they are not in `data`."""

    binary_data_size: Annotated[int, Field(ge=0)] | None = None


class Tensor(_Body):
    """An input. Few dimensions, so that their product is a number of few digits."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 32)]], Field(max_length=8)]
    datatype: Datatype
    parameters: TensorParameters | None = None
    data: list[Any] | None = None


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a body as it was before its content-encoding; Problem if it has over `limit` bytes."""
    if encoding == "identity":
        return body
    if encoding not in _ENCODINGS:
        raise _wrong(f"content-encoding {encoding[:40]} is unknown", "gzip, deflate, or none")
    unpacker = zlib.decompressobj(_ENCODINGS[encoding])
    try:
        data = unpacker.decompress(body, limit + 1)  # never more, whatever the body holds
    except zlib.error:
        raise _wrong(f"the body is not {encoding}", "pack it again, or send it as it is") from None
    if len(data) > limit:
        raise too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise _wrong(f"the body is not one whole {encoding}", "pack it again, or send it as it is")
    return data


def split(body: bytes, size: str | None) -> tuple[bytes, bytes]:
    """Return the JSON of an unpacked body, of so many bytes, and the bytes behind it."""
    if size is None:
        return body, b""
    if not size.isdecimal() or len(size) > 18 or int(size) > len(body):
        text = f"inference-header-content-length {size[:20]} of a body of {len(body)} bytes"
        raise _wrong(text, "it counts the bytes of the JSON, unpacked")
    return body[: int(size)], body[int(size) :]


def values(tensors: Sequence[Tensor], behind: bytes, arrays: Collection[str]) -> dict[str, Any]:
    """Return the tensors by name: the value if a tensor has one, or a list in row-major order.

    Those that are named in `arrays` are arrays of their own shapes.

    `behind` holds those that are bytes, one after the other, and nothing else.
    """
    sizes = [each.parameters.binary_data_size if each.parameters else None for each in tensors]
    if sum(size or 0 for size in sizes) != len(behind):
        text = f"{len(behind)} bytes are behind the JSON, which are not those of the tensors"
        raise _wrong(text, "give each its binary_data_size, and the body its header")
    found: dict[str, Any] = {}
    begin = 0
    for tensor, size in zip(tensors, sizes, strict=True):
        if tensor.name in found:
            raise _wrong(f"two inputs are called {tensor.name}", "send it once")
        if (size is None) == (tensor.data is None):
            raise _wrong(f"where is {tensor.name}?", "give data or binary_data_size, not both")
        part = memoryview(behind)[begin : begin + (size or 0)]
        each = _listed(tensor) if size is None else _read(tensor, part)
        begin += len(part)
        found[tensor.name] = _array(tensor, each) if tensor.name in arrays else plain(each)
    return found


def _array(tensor: Tensor, each: list[Any] | NDArray[Any]) -> NDArray[Any]:
    if not tensor.datatype.startswith("FP"):
        raise _wrong(f"{tensor.name} is {tensor.datatype}", "send FP32")
    try:
        return np.asarray(each, _TYPES[tensor.datatype]).reshape(tensor.shape)
    except ValueError:  # no numbers at all, in dimensions that are huge
        raise _misshapen(tensor) from None


def plain(each: list[Any] | NDArray[Any]) -> Any:
    """Return the value of a tensor if it has one, and else the list of its values."""
    listed = each if isinstance(each, list) else each.tolist()
    return listed[0] if len(listed) == 1 else listed


def _listed(tensor: Tensor) -> list[Any]:
    """Return what stands in a tensor's `data`, nested or not."""
    data = tensor.data or []
    while data and all(isinstance(each, list) for each in data):
        data = list(chain.from_iterable(data))
    if len(data) != math.prod(tensor.shape):
        raise _misshapen(tensor)
    if not all(_fits(value, tensor.datatype) for value in data):
        raise _wrong(f"{tensor.name} has other values than {tensor.datatype}", "see its datatype")
    return data


def _fits(value: Any, datatype: str) -> bool:
    if datatype == "BYTES":
        return isinstance(value, str)
    if datatype == "BOOL":
        return isinstance(value, bool)
    if datatype.startswith("FP"):
        return type(value) in (int, float) and abs(value) <= float(np.finfo(_TYPES[datatype]).max)
    bounds = np.iinfo(_TYPES[datatype])
    return type(value) is int and bounds.min <= value <= bounds.max


def _read(tensor: Tensor, data: memoryview) -> list[str] | NDArray[Any]:
    """Return the values in a tensor's bytes. Its shape is compared first, and nothing is made."""
    count = math.prod(tensor.shape)
    if tensor.datatype == "BYTES":
        return _texts(tensor, data, count)
    dtype = _TYPES[tensor.datatype]
    if count * dtype.itemsize != len(data):
        raise _misshapen(tensor)
    return np.frombuffer(data, dtype)


def _texts(tensor: Tensor, data: memoryview, count: int) -> list[str]:
    """Return texts, each of which stands behind its length."""
    found: list[str] = []
    while data and len(found) < count:
        end = _PREFIX + int.from_bytes(data[:_PREFIX], "little")
        if end > len(data):
            raise _misshapen(tensor)
        try:
            found.append(str(data[_PREFIX:end], "utf-8"))
        except UnicodeDecodeError:
            raise _wrong(f"{tensor.name} is no UTF-8", "encode it so") from None
        data = data[end:]
    if data or len(found) != count:
        raise _misshapen(tensor)
    return found


def _misshapen(tensor: Tensor) -> Problem:
    text = f"{tensor.name} has not the values of its shape {tensor.shape} and {tensor.datatype}"
    return _wrong(text, "see its shape")


def _wrong(message: str, hint: str) -> Problem:
    return Problem(400, "invalid-tensor", message, hint)
