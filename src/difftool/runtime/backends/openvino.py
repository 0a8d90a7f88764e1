"""OpenVINO on the CPU, in the precision that is asked for; by itself it may choose bfloat16."""

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.alone import open_vino
from difftool.bundle import Bundle
from difftool.diffusion.columns import Column
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.errors import ArtefactError, MissingDependencyError
from difftool.log import logger
from difftool.preflight import OnnxFile
from difftool.runtime.backends.host import Arrays, HostBatch
from difftool.runtime.backends.host_slots import HostSlots
from difftool.runtime.backends.prepare import Preparation, Prepared
from difftool.runtime.backends.table import Asked
from difftool.runtime.memory import library_error, no_memory, no_memory_for_model

_log = logger(__name__)

# OpenVINO's names. "int8" is a graph of its own, whose other values are float32.
_HINTS: Final = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
_OPTIONS: Final = {
    "ENABLE_CPU_PINNING": False,  # a pinned thread cannot make way for other programs
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
}
_KEPT: Final = 4  # compiled sizes; a run whose last batch is smaller has two


class OpenVino:
    """The graph `step.onnx` in fp32 or bf16, or `step.int8.onnx`; by default on all cores.

    The graph is compiled for each size of a batch, since a free size is much slower.
    """

    name = "openvino"

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, precision: str = "fp32"
    ) -> None:
        file, core = bundle.step(precision if precision == "int8" else "fp32"), _Core(threads)
        self._prepare = Preparation(bundle, file, core.function)
        self.features = self._prepare.features
        part = _index_graph(core.read(file))
        self._indices = None if part is None else core.compile(part, "f32")
        compiled = partial(_compiled_step, core, file, _HINTS[precision], bundle.spec.shape)
        self._step = lru_cache(_KEPT)(compiled)
        self._compiling = threading.Lock()

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> HostBatch:
        """Make room for `size` samples of a program; a new size compiles the graph."""
        begin = self._prepare(program, size, labels)
        return self._bound(begin, self._find_indices(begin.rows.table.astype(np.float32)))

    def slots(self, count: int, most: int) -> HostSlots:
        """Make room for samples of any programs, of which `most` run together."""
        return HostSlots(self._prepare, self._bound, count, most, self._find_indices)

    def _bound(self, begin: Prepared, indices: Arrays) -> HostBatch:
        with self._compiling:  # a size is compiled once, whoever asks first
            step = self._step(begin.shape[0], begin.slots)
        bind = partial(_bind, step, indices)
        taken = {port.get_any_name() for port in step.inputs}
        return HostBatch(bind, taken, begin)

    def _find_indices(self, table: NDArray[np.float32]) -> Arrays:
        """Return what the step graph's index inputs are, for every row of a table."""
        if self._indices is None:
            return {}
        rows = np.arange(len(table))
        found = _call(self._indices, {"row": rows, "table": table})
        return {_index_name(i): array for i, array in enumerate(found)}


def open_asked(bundle: Bundle, asked: Asked) -> OpenVino:
    """Open the backend of the table's row."""
    return OpenVino(bundle, threads=asked.threads, precision=asked.precision)


class _Core:
    """OpenVINO itself: it reads and compiles graphs, and its errors become ours."""

    def __init__(self, threads: int | None) -> None:
        openvino = open_vino()
        self._core = openvino.Core()
        _load_plugin(self._core)
        # From bytes alone, OpenVINO would guess the format.
        self._reader = openvino.frontend.FrontEndManager().load_by_framework("onnx")
        self._options = {**_OPTIONS, **({"INFERENCE_NUM_THREADS": threads} if threads else {})}

    def read(self, file: OnnxFile) -> Any:
        """Read the graph of a file."""
        try:
            return self._reader.convert(self._reader.load(io.BytesIO(file.data)))
        except Exception as error:  # the reader's errors share no base of their own
            refused = f"OpenVINO refuses {file.path}: {_reason(error)}"
            refusal = ArtefactError(refused, "export it again", code="graph-refused")
            raise library_error(error, no_memory_for_model(file.path), refusal) from error

    def compile(self, model: Any, hint: str, size: int | None = None) -> Any:
        """Compile a graph to compute in `hint`; MissingDependencyError if this CPU cannot.

        `size` is the size of a batch, if the graph has one.
        """
        options = {**self._options, "INFERENCE_PRECISION_HINT": hint}
        try:
            compiled = self._core.compile_model(model, "CPU", options)
        except (RuntimeError, MemoryError) as error:
            none = no_memory_for_model("the step graph") if size is None else no_memory(size)
            refused = f"OpenVINO cannot compile the step graph: {_reason(error)}"
            refusal = ArtefactError(refused, "export it again", code="graph-refused")
            raise library_error(error, none, refusal) from error
        # Without instructions for this precision, it silently takes another.
        if (actual := compiled.get_property("INFERENCE_PRECISION_HINT").to_string()) != hint:
            raise MissingDependencyError(
                f"OpenVINO has no {hint} on this CPU, only {actual}", "choose `precision=fp32`"
            )
        return compiled

    def function(self, file: OnnxFile) -> Callable[[Arrays], NDArray[np.float32]]:
        """Return a graph with one output as a function of its inputs, in float32."""
        compiled = self.compile(self.read(file), "f32")
        return lambda inputs: _call(compiled, inputs)[0]


def _compiled_step(
    core: _Core, file: OnnxFile, hint: str, shape: tuple[int, ...], size: int, slots: int
) -> Any:
    """Return the step graph compiled for N samples and K slots, for tables of any length."""
    model = core.read(file)
    _take_indices(model)
    sample = [size, *shape]
    shapes = {name: sample for name in ("x", "noise", "known", "mask")}
    shapes |= {"history": [slots, *sample], "row": [size]}
    shapes["table"] = [-1, Column.HISTORY + slots]
    taken = {port.get_any_name() for port in model.inputs}
    model.reshape({name: shape for name, shape in shapes.items() if name in taken})
    _log.debug("compiling the step graph for a batch of %d", size)
    return core.compile(model, hint, size)


def _load_plugin(core: Any) -> None:
    """Load OpenVINO's part for CPUs in a thread that ends at once.

    It gives the thread that loads it a stack for signals, and frees that stack when it is unloaded.
    If another thread unloads it, or if two of them are unloaded in the order in which they were
    loaded, the first thread has no stack for its next signal, which then ends the process.
    """
    with ThreadPoolExecutor(1) as loader:
        loader.submit(core.get_versions, "CPU").result()


def _call(compiled: Any, inputs: Arrays) -> list[NDArray[Any]]:
    """Run a compiled graph once. Its own call would share one request among all threads."""
    found = compiled.create_infer_request().infer(dict(inputs))
    return [found[i].copy() for i in range(len(found))]


def _index_graph(model: Any) -> Any:
    """Return the part of a step graph that finds, for row [N], indices [N] into cond_table.

    None if there is no such part, since the network is not conditioned.

    In bfloat16 OpenVINO rounds whatever leads to a product, and so this column of a row, too: it
    then finds half of a thousand noise levels, or one beyond the last. So this part runs on its
    own, in float32 and once for a program.
    """
    found = [node.output(0) for node in _index_nodes(model)]
    inputs = [model.input(name).get_node() for name in ("row", "table")]
    return open_vino().Model(found, inputs, "indices") if found else None


def _take_indices(model: Any) -> None:
    """Let a step graph look its indices up by row, in inputs of its own: [R], one for each."""
    opset = open_vino().opset13
    row = model.input("row").get_node()
    for i, node in enumerate(_index_nodes(model)):
        kind = node.get_output_element_type(0)
        indices = opset.parameter([-1], kind, _index_name(i))
        indices.output(0).set_names({_index_name(i)})
        model.add_parameters([indices])
        found = opset.gather(indices, row, opset.constant(0))
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(found.output(0))
    model.validate_nodes_and_infer_types()


def _index_nodes(model: Any) -> list[Any]:
    """Return the nodes that turn reals into integers, but not those of 8 bits, which quantize."""
    return [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Convert"
        and node.get_input_element_type(0).is_real()
        and node.get_output_element_type(0).is_integral()
        and node.get_output_element_type(0).bitwidth > 8
    ]


def _index_name(i: int) -> str:
    return f"indices_{i}"


def _bind(step: Any, indices: Arrays, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
    tensor, request = open_vino().Tensor, step.create_infer_request()
    arrays = {**inputs, **indices, **outputs}
    for name, array in arrays.items():
        request.set_tensor(name, tensor(array, shared_memory=True))

    # The request does not keep the arrays alive that it reads and writes, but this default does.
    def run(arrays: Arrays = arrays) -> None:
        try:
            request.infer()
        except (RuntimeError, MemoryError) as error:
            failed = f"OpenVINO failed: {_reason(error)}"
            failure = ArtefactError(failed, "verify the bundle", code="graph-failed")
            raise library_error(error, no_memory(len(arrays["x_next"])), failure) from error

    return run


def _reason(error: Exception) -> str:
    """Return what OpenVINO says; its first lines only name its own files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("Exception from")]
    return (said or lines or [type(error).__name__])[0][:200]
