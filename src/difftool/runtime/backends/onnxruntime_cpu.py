"""ONNX Runtime on the CPU, with bound, reused buffers: a step allocates nothing in Python."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import CONDITIONER, STEP, Bundle
from difftool.diffusion.columns import Column
from difftool.diffusion.labels import Labels, Rows, rows_of
from difftool.diffusion.program import Program
from difftool.errors import (
    ArtefactError,
    DifftoolError,
    MissingDependencyError,
    ResourceError,
    UsageError,
)
from difftool.runtime.backends import require_fused

Floats = NDArray[np.float32]


class OnnxRuntimeCpu:
    """Runs `step.onnx`; `threads` is ONNX Runtime's intra-op count, all cores by default."""

    name = "onnxruntime-cpu"

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"{threads} threads", "use at least 1")
        self.fused = frozenset[str](bundle.manifest.fused)
        self._spec = bundle.spec
        self._step = _session(bundle.file(STEP), threads)
        self._conditioner = (
            _session(bundle.file(CONDITIONER), 1) if CONDITIONER in bundle.manifest.files else None
        )

    def batch(
        self, program: Program, size: int, labels: Labels | None = None
    ) -> "OnnxRuntimeBatch":
        """Room for `size` samples of a program."""
        require_fused(self.fused, program, labels)
        rows = rows_of(program, self._spec, size, labels)
        conds: dict[str, NDArray[Any]] = {"cond": rows.conds.astype(np.float32)}
        if rows.labels is not None:
            conds["label"] = rows.labels
        cond_table = np.zeros((len(rows.conds), 0), np.float32)
        if self._conditioner is not None:
            cond_table = self._conditioner.run(None, conds)[0]
        return OnnxRuntimeBatch(self._step, program, rows, cond_table, (size, *self._spec.shape))


class OnnxRuntimeBatch:
    """Two bindings that read each other's outputs: x, history and row swap sides every step."""

    def __init__(
        self,
        session: Any,
        program: Program,
        rows: Rows,
        cond_table: Floats,
        shape: tuple[int, ...],
    ) -> None:
        self._session = session
        self._program = program.table
        self._first = rows.first
        self._side, self._done = 0, 0
        self._x = [np.zeros(shape, np.float32) for _ in range(2)]
        self._history = [np.zeros((program.history, *shape), np.float32) for _ in range(2)]
        self._row = [np.zeros(shape[0], np.int64) for _ in range(2)]
        self._noise = np.zeros(shape, np.float32)
        self._denoised = np.zeros(shape, np.float32)
        taken = {node.name for node in session.get_inputs()}
        held = {name: np.zeros(shape, np.float32) for name in taken & {"known", "mask"}}
        # A network without conditioner takes no cond_table.
        fixed = {"table": rows.table.astype(np.float32), "cond_table": cond_table}
        self._fixed = {**{name: fixed[name] for name in taken & fixed.keys()}, **held}
        self._bindings = [self._bind(side) for side in range(2)]

    def start(self, x: Floats, *, row: int = 0, history: Floats | None = None) -> None:
        """Begin at a row from x [N, *S] and history [K, N, *S], which is empty by default."""
        self._side, self._done = 0, row
        self._x[0][...] = x
        self._history[0][...] = 0 if history is None else history
        self._row[0][...] = self._first + row

    def hold(self, known: Floats, mask: Floats) -> None:
        """Replace D by `known` where `mask` is 1, in every row from now on."""
        self._fixed["known"][...] = known
        self._fixed["mask"][...] = mask

    def step(self, noise: Floats | None) -> None:
        """Run the next row."""
        if noise is not None:
            self._noise[...] = noise
        try:
            self._session.run_with_iobinding(self._bindings[self._side])
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise _run_error(error, len(self._noise)) from error
        self._side ^= 1
        self._done += 1

    def revise(self, denoised: Floats) -> None:
        """Take the last row again with this D."""
        row = self._program[self._done - 1].astype(np.float32)
        change = denoised - self._denoised
        self.x[...] += row[Column.B] * change
        self.history[0] += row[Column.F] * change
        self._denoised[...] = denoised

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
            **self._fixed,
        }
        outputs: dict[str, NDArray[Any]] = {
            "x_next": self._x[other],
            "history_next": self._history[other],
            "row_next": self._row[other],
            "denoised": self._denoised,
        }
        binding = self._session.io_binding()
        for name, array in inputs.items():
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
