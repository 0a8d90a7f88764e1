"""A program as the arrays that `sampler.onnx` takes, and as a file that any language can read."""

import json
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.program import Program
from difftool.diffusion.start import Start
from difftool.errors import UsageError

_ALIGNMENT: Final = 8


def graph_inputs(program: Program) -> dict[str, NDArray[np.float32]]:
    """Return the inputs of `sampler.onnx` that make it run a program, float32.

    - `table` [R, columns] and `cond` [U]: the program's
    - `start` [3]: x is start[0] + start[1] * uniform + start[2] * normal before the first row

    UsageError if a row r does not use draw r + 1, or if x starts from data.
    """
    if (program.draws != np.arange(1, len(program) + 1)).any():
        raise UsageError(
            f"{program.name} has an order of draws of its own",
            "sampler.onnx gives row r the draw r + 1; use a program whose draws do so",
        )
    return {
        "table": program.table.astype(np.float32),
        "cond": program.conds.astype(np.float32),
        "start": _start(program.start),
    }


def pack_program(program: Program) -> bytes:
    """Return the arrays of `graph_inputs` as one file, in the layout of safetensors.

    The file is a uint64 length, a JSON header of that many bytes, and the arrays, all
    little-endian. The arrays begin at a multiple of 8 bytes. The header gives each array's dtype,
    shape and offsets after the header, and the program's name under `__metadata__`.
    """
    header: dict[str, object] = {"__metadata__": {"program": program.name}}
    data = b""
    for name, array in graph_inputs(program).items():
        content = array.astype("<f4").tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)  # spaces are valid at the end of JSON
    return len(text).to_bytes(8, "little") + text + data


def _start(start: Start) -> NDArray[np.float32]:
    if start.kind == "data":
        raise UsageError(
            "this program starts from data under noise", "compile it for the model's whole spec"
        )
    if start.kind == "normal":
        return np.array([0, 0, start.high], np.float32)
    low, high = np.float32(start.low), np.float32(start.high)
    return np.array([low, high - low, 0], np.float32)
