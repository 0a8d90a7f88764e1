"""Tensors of Triton's Python backend, as arrays and texts, in both directions.

`pb` is Triton's module `triton_python_backend_utils`, which is in its processes alone. Numbers go
through DLPack: a backend that was built with numpy 1, as until Triton 24.10, reads and makes wrong
arrays under numpy 2.
"""

import ctypes
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.serve.fields import ARRAYS, INPUTS, PREVIEWS
from difftool.serve.kserve import gather
from difftool.serve.problems import Problem
from difftool.serve.tensors import plain

_TEXTS: Final = frozenset(name for name, (datatype, _) in INPUTS.items() if datatype == "BYTES")
_USED: Final = ctypes.c_char_p(b"used_dltensor")
_set_name: Final = ctypes.pythonapi.PyCapsule_SetName
_set_name.argtypes = [ctypes.py_object, ctypes.c_char_p]


def read_fields(request: Any) -> dict[str, Any]:
    """Return the fields of a request by name, from its inputs and its parameters.

    Problem if a field comes as both, if one is unknown, or if a text cannot be read.
    """
    inputs = {each.name(): _value(each) for each in request.inputs()}
    parameters = json.loads(request.parameters() or "{}")
    return gather(inputs, parameters, [*INPUTS, PREVIEWS])


def make_tensors(pb: Any, arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
    """Return arrays of numbers as Triton's tensors of these names."""
    return [_tensor(pb, name, np.ascontiguousarray(each)) for name, each in arrays.items()]


def guard_texts(pb: Any) -> None:
    """Let texts that the Python backend cannot read be refused; else they would end the process.

    A backend that was built with numpy 1 repeats a text's first byte under numpy 2. No text with
    its length before it consists of equal bytes, but for empty ones, which no field takes.
    """
    read = pb.deserialize_bytes_tensor

    def guarded(encoded: NDArray[np.uint8]) -> Any:
        unreadable = encoded.size and encoded.min() == encoded.max()
        return _Unreadable() if unreadable else read(encoded)

    pb.deserialize_bytes_tensor = guarded


class _Unreadable:
    """What stands for an array of texts until it has its shape."""

    def reshape(self, shape: Sequence[int]) -> NDArray[np.object_]:
        return np.full(tuple(shape), None, np.object_)


def _value(tensor: Any) -> Any:
    name = tensor.name()
    if name in _TEXTS:
        return plain([_text(name, each) for each in tensor.as_numpy().ravel()])
    array = np.from_dlpack(tensor).copy()  # Triton's own memory lasts as long as the request
    if name not in ARRAYS:
        return plain(array.ravel())
    return array[0] if len(array) == 1 else array


def _text(name: str, data: Any) -> str:
    if not isinstance(data, bytes):
        text = f"{name}: this Triton's Python backend cannot read a text, or it is empty"
        raise Problem(400, "invalid-tensor", text, f"send {name} as a parameter of the request")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Problem(400, "invalid-tensor", f"{name} is no UTF-8", "encode it so") from None


def _tensor(pb: Any, name: str, array: NDArray[Any]) -> Any:
    capsule = array.__dlpack__()
    made = pb.Tensor.from_dlpack(name, capsule)
    # Triton gives what it has taken another name than DLPack says, and numpy would warn of that.
    _set_name(capsule, _USED)
    return made
