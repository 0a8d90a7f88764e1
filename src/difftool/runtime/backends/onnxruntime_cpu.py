"""ONNX Runtime on the CPU, with bound, reused buffers: a step allocates nothing in Python."""

from collections.abc import Callable
from functools import partial
from typing import Any

from difftool.bundle import Bundle
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.runtime.backends.host import Arrays, HostBatch
from difftool.runtime.backends.host_slots import HostSlots
from difftool.runtime.backends.prepare import Preparation, Prepared
from difftool.runtime.backends.sessions import cpu_session, run_error
from difftool.runtime.backends.table import Asked


class OnnxRuntimeCpu:
    """The step graph of a `precision` on ONNX Runtime; `difftool quantize` makes that of int8.

    `threads` run one operator together, by default all cores.
    """

    name = "onnxruntime-cpu"

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, precision: str = "fp32"
    ) -> None:
        step = bundle.step(precision)
        self._prepare = Preparation(bundle, step)
        self.features = self._prepare.features
        self._step = cpu_session(step.data, step.path, threads)

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> HostBatch:
        """Make room for `size` samples of a program."""
        begin = self._prepare(program, size, labels)
        return self._bound(begin, one_row=takes_one_row(self._step))

    def slots(self, count: int, most: int) -> HostSlots:
        """Make room for samples of any programs, of which `most` run together."""
        return HostSlots(self._prepare, lambda begin, _: self._bound(begin), count, most)

    def _bound(self, begin: Prepared, *, one_row: bool = False) -> HostBatch:
        step = self._step
        taken = {node.name for node in (*step.get_inputs(), *step.get_overridable_initializers())}
        return HostBatch(partial(_bind, step), taken, begin, one_row=one_row)


def open_asked(bundle: Bundle, asked: Asked) -> OnnxRuntimeCpu:
    """Open the backend of the table's row."""
    return OnnxRuntimeCpu(bundle, threads=asked.threads, precision=asked.precision)


def takes_one_row(session: Any) -> bool:
    """Tell if a step graph also takes one row number, for a batch that stands at one row."""
    axes = {node.name: node.shape for node in session.get_inputs()}
    return bool(axes["row"] != axes["x"][:1])


def _bind(session: Any, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for name, array in outputs.items():
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    size = len(outputs["x_next"])

    def run() -> None:
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise run_error(error, size) from error

    return run
