"""ONNX Runtime on the CPU, with bound, reused buffers: a step allocates nothing in Python."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import CONDITIONER, STEP, Bundle
from difftool.diffusion.program import Program
from difftool.errors import (
    ArtefactError,
    DifftoolError,
    MissingDependencyError,
    ResourceError,
    UsageError,
)

Floats = NDArray[np.float32]


class OnnxRuntimeCpu:
    """Runs `step.onnx`; `threads` is ONNX Runtime's intra-op count, all cores by default."""

    name = "onnxruntime-cpu"

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"{threads} threads", "use at least 1")
        self._shape = bundle.spec.shape
        self._step = _session(bundle.file(STEP), threads)
        self._conditioner = (
            _session(bundle.file(CONDITIONER), 1) if CONDITIONER in bundle.manifest.files else None
        )

    def batch(self, program: Program, size: int) -> "OnnxRuntimeBatch":
        """Room for `size` samples of a program."""
        conds = program.conds.astype(np.float32)
        cond_table = np.zeros((len(conds), 0), np.float32)
        if self._conditioner is not None:
            cond_table = self._conditioner.run(None, {"cond": conds})[0]
        return OnnxRuntimeBatch(self._step, program, cond_table, (size, *self._shape))


class OnnxRuntimeBatch:
    """Two bindings that read each other's outputs: x, history and row swap sides every step."""

    def __init__(
        self, session: Any, program: Program, cond_table: Floats, shape: tuple[int, ...]
    ) -> None:
        self._session = session
        self._side = 0
        self._x = [np.zeros(shape, np.float32) for _ in range(2)]
        self._history = [np.zeros((program.history, *shape), np.float32) for _ in range(2)]
        self._row = [np.zeros(shape[0], np.int64) for _ in range(2)]
        self._noise = np.zeros(shape, np.float32)
        self._denoised = np.zeros(shape, np.float32)
        self._tables = {"table": program.table.astype(np.float32), "cond_table": cond_table}
        self._bindings = [self._bind(side) for side in range(2)]

    def start(self, x: Floats, *, row: int = 0, history: Floats | None = None) -> None:
        """Begin at a row from x [N, *S] and history [K, N, *S], which is empty by default."""
        self._side = 0
        self._x[0][...] = x
        self._history[0][...] = 0 if history is None else history
        self._row[0][...] = row

    def step(self, noise: Floats | None) -> None:
        """Run the next row."""
        if noise is not None:
            self._noise[...] = noise
        try:
            self._session.run_with_iobinding(self._bindings[self._side])
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise _run_error(error, len(self._noise)) from error
        self._side ^= 1

    @property
    def x(self) -> Floats:
        """The state [N, *S] after the last row; a view."""
        return self._x[self._side]

    @property
    def history(self) -> Floats:
        """The history [K, N, *S] after the last row; a view."""
        return self._history[self._side]

    @property
    def denoised(self) -> Floats:
        """D [N, *S] of the last row; a view."""
        return self._denoised

    def _bind(self, side: int) -> Any:
        other = 1 - side
        inputs: dict[str, NDArray[Any]] = {
            "x": self._x[side],
            "history": self._history[side],
            "row": self._row[side],
            "noise": self._noise,
            **self._tables,
        }
        outputs: dict[str, NDArray[Any]] = {
            "x_next": self._x[other],
            "history_next": self._history[other],
            "row_next": self._row[other],
            "denoised": self._denoised,
        }
        binding = self._session.io_binding()
        taken = {
            node.name for node in self._session.get_inputs()
        }  # an unconditional net has no cond
        for name in inputs.keys() & taken:
            array = inputs[name]
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return binding


def _session(path: Path, threads: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError.extra("onnxruntime", "cpu") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base of their own
        raise ArtefactError(
            f"ONNX Runtime refuses {path}: {_first_line(error)}", "export it again"
        ) from error


def _run_error(error: Exception, size: int) -> DifftoolError:
    if "alloc" in str(error):
        return ResourceError(
            f"no memory for a batch of {size}", f"try max_batch {max(1, size // 2)}"
        )
    return ArtefactError(f"ONNX Runtime failed: {_first_line(error)}", "verify the bundle")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
