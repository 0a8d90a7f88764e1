"""A program as the arrays that `sampler.onnx` takes, and as a file of them for any language."""

import json
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.program import Program
from difftool.diffusion.start import Start
from difftool.errors import UsageError

_ALIGNMENT: Final = 8


def graph_inputs(program: Program) -> dict[str, NDArray[np.float32]]:
    """The inputs of `sampler.onnx` that make it run a program, float32.

    - `table` [R, columns] and `cond` [U]: the program's
    - `start` [3]: x is start[0] + start[1] * uniform + start[2] * normal before the first row

    UsageError if a row does not use the draw of its own number, or x starts from data.
    """
    if (program.draws != np.arange(1, len(program) + 1)).any():
        raise UsageError(
            f"{program.name} has an order of draws of its own", "sampler.onnx counts them by row"
        )
    return {
        "table": program.table.astype(np.float32),
        "cond": program.conds.astype(np.float32),
        "start": _start(program.start),
    }


def pack_program(program: Program) -> bytes:
    """The arrays of `graph_inputs` in one file, in the layout of safetensors.

    A length, uint64; a header of that many bytes, JSON; and the arrays. All is little-endian, and
    the arrays begin at a multiple of 8 bytes. The header gives each array its dtype, its shape and
    where it lies after the header, and under `__metadata__` the program's name.
    """
    header: dict[str, object] = {"__metadata__": {"program": program.name}}
    data = b""
    for name, array in graph_inputs(program).items():
        content = array.astype("<f4").tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + data


def _start(start: Start) -> NDArray[np.float32]:
    if start.kind == "data":
        raise UsageError("this program starts from data under noise", "use the model's whole spec")
    if start.kind == "normal":
        return np.array([0, 0, start.high], np.float32)
    low, high = np.float32(start.low), np.float32(start.high)
    return np.array([low, high - low, 0], np.float32)
