"""ONNX Runtime on a GPU: the step graph on fixed device buffers, in the stream of the noise kernel.

ONNX Runtime captures and replays its CUDA graphs itself, one for each binding; the noise kernel is
launched between them.
"""

import contextlib
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from difftool.alone import onnx_runtime
from difftool.bundle import Bundle
from difftool.errors import ArtefactError, MissingDependencyError, install_hint
from difftool.log import logger
from difftool.preflight import OnnxFile
from difftool.runtime.backends.sessions import open_session, run_error, session_options
from difftool.runtime.backends.table import TF32, Asked
from difftool.runtime.cuda.backend import DeviceBackend
from difftool.runtime.cuda.cuda_device import open_device
from difftool.runtime.cuda.device import Bound, Buffer, Device, Launch

_log = logger(__name__)

# Backend -> ONNX Runtime's provider. Those of TensorRT build an engine when a run first needs it;
# `difftool.runtime.backends.tensorrt` runs engines that were built before.
PROVIDERS: Final = {
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "onnxruntime-tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
_WHEEL: Final = f"run: pip uninstall onnxruntime, then {install_hint('gpu')}"
_BUILDS: Final = {  # of providers that the wheels lack
    "NvTensorRTRTXExecutionProvider": "install a build of ONNX Runtime that has it",
}
_LIBRARIES: Final = {
    "CUDAExecutionProvider": "run: pip install 'onnxruntime-gpu[cuda,cudnn]'",
    "TensorrtExecutionProvider": "it needs libnvinfer.so.10, which is TensorRT 10, on the library "
    "path; difftool[trt] brings TensorRT 11",
    "NvTensorRTRTXExecutionProvider": "it needs libtensorrt_rtx on the library path",
}
_BATCH_ELEMENTS: Final = 1 << 18  # numbers in a default batch: enough to keep a GPU busy
_NO_LIMIT: Final = 1 << 31
_NO_GRAPH: Final = -1  # the number with which none is captured or replayed
_GRAPHS: Final = 16  # that a session may capture: it releases none for as long as it lives


class OnnxRuntimeEngine:
    """A session on a device; with `graphs` it captures CUDA graphs of its own."""

    sizes = (1, _NO_LIMIT)

    def __init__(self, session: Any, device: Device, best: int, *, graphs: bool) -> None:
        self._session, self._device = session, device
        self._graphs = graphs
        self._graph_ids = iter(range(1, _GRAPHS + 1))  # 0 is ONNX Runtime's own
        self.best = best
        self.inputs = frozenset[str](node.name for node in session.get_inputs())

    def wider(self, size: int) -> str:
        """Never be asked: there is no limit."""
        raise AssertionError(f"a session takes {size} samples")

    def bind(self, sides: Sequence[Mapping[str, Buffer]]) -> Bound:
        """Bind each side. A run must not be captured, since it may allocate.

        The first bindings have graphs, which are never released and so hold for as long as the
        session; later ones have none. A graph cannot be captured again under its number, nor can
        one be replayed on other buffers.
        """
        graphs = list(itertools.islice(self._graph_ids, len(sides))) if self._graphs else []
        if self._graphs and not graphs:
            self._graphs = False
            _log.warning("batches of more sizes than %d run without CUDA graphs", _GRAPHS // 2)
        ids = graphs or [_NO_GRAPH] * len(sides)
        runs = [self._run(tensors, graph) for tensors, graph in zip(sides, ids, strict=True)]
        return Bound(runs, capturable=False, replays=bool(graphs))

    def _run(self, tensors: Mapping[str, Buffer], graph: int) -> Launch:
        binding = self._session.io_binding()
        for name, buffer in tensors.items():
            bind = binding.bind_input if name in self.inputs else binding.bind_output
            bind(name, "cuda", self._device.number, buffer.dtype, buffer.shape, buffer.address)
        options = onnx_runtime().RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        options.add_run_config_entry("gpu_graph_id", str(graph))
        size = tensors["x"].shape[0]

        def run() -> None:
            try:
                self._session.run_with_iobinding(binding, options)
            except Exception as error:
                raise run_error(error, size) from error

        return run


def open_asked(bundle: Bundle, asked: Asked) -> DeviceBackend:
    """Open the backend of one of the table's rows, which differ in the provider."""
    return open_onnxruntime(bundle, asked.name, asked.precision, number=asked.device)


def open_onnxruntime(
    bundle: Bundle, name: str, precision: str = "fp32", *, number: int = 0, graphs: bool = True
) -> DeviceBackend:
    """Open a bundle's step graph on the GPU `number`, by one of `PROVIDERS`.

    "tf32" is the graph of float32, whose matrix products may round their inputs to 10 bits of
    mantissa. This is faster, and no longer agrees with the CPU. `graphs` lets CUDA graphs be
    captured, if the provider can.

    Raises:
        MissingDependencyError: there is no GPU, or the provider or its libraries are missing.
        ArtefactError: the bundle has no graph of that precision.
    """
    provider = PROVIDERS[name]
    _require(provider)
    device = open_device(number)
    step = bundle.step("fp32" if precision == TF32 else precision)
    best = max(1, _BATCH_ELEMENTS // int(np.prod(bundle.spec.shape)))
    wanted = graphs and name == "onnxruntime-cuda"
    tf32 = precision != "fp32"
    options = _options(provider, device, tf32=tf32, graphs=wanted)
    try:
        session = _session(step, provider, options)
    except ArtefactError:
        if not wanted:
            raise
        # A node that the provider leaves to the CPU cannot be part of a graph.
        wanted, options = False, _options(provider, device, tf32=tf32, graphs=False)
        session = _session(step, provider, options)
    engine = OnnxRuntimeEngine(session, device, best, graphs=wanted)
    return DeviceBackend(name, bundle, device, engine, "rows" if wanted else "off", step)


def _require(provider: str) -> None:
    """Load ONNX Runtime's CUDA libraries; MissingDependencyError if it has no such provider."""
    try:
        runtime = onnx_runtime()
    except MissingDependencyError as error:
        raise MissingDependencyError.extra("onnxruntime-gpu", "gpu") from error
    if provider not in runtime.get_available_providers():
        raise MissingDependencyError(
            f"the installed onnxruntime has no {provider}", _BUILDS.get(provider, _WHEEL)
        )
    # It warns of plugins that nobody asked for, and of its own end; errors are raised anyway.
    runtime.set_default_logger_severity(4)
    with _printed_to_log():  # it prints what it does not find
        runtime.preload_dlls()


@contextlib.contextmanager
def _printed_to_log() -> Iterator[None]:
    """Log whatever the library prints, since stdout belongs to the command."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        yield
    for line in filter(None, printed.getvalue().splitlines()):
        _log.warning("%s", line)


def _options(provider: str, device: Device, *, tf32: bool, graphs: bool) -> dict[str, str]:
    options = {"device_id": str(device.number), "user_compute_stream": str(device.stream)}
    if provider == "CUDAExecutionProvider":
        # Without TF32, ONNX Runtime 1.31 keeps cuDNN from all tensor cores, whatever the type of a
        # convolution (`deselect_numeric_notes` in its conv.cc). So 16 bits need it, too.
        options["use_tf32"] = str(int(tf32))
        # Channels last took 2.3 times as long in 16 bits on an H100, but that was without tensor
        # cores. It stays off until it is measured with them.
        options["prefer_nhwc"] = "0"
        options["enable_cuda_graph"] = str(int(graphs))
    if provider == "NvTensorRTRTXExecutionProvider":
        options["has_user_compute_stream"] = "1"
    return options


def _session(step: OnnxFile, provider: str, options: dict[str, str]) -> Any:
    def refused(reason: str) -> ArtefactError:
        what = f"ONNX Runtime refuses {step.path} on the GPU: {reason}"
        return ArtefactError(what, "use another `precision`, or `backend=onnxruntime-cpu`")

    with _printed_to_log():  # it prints that it goes on with the CPU
        session = open_session(
            step.data, session_options(), [(provider, options)], step.path, refused
        )
    if session.get_providers()[0] != provider:
        raise MissingDependencyError(
            f"ONNX Runtime cannot load {provider}: a library is missing or of another version",
            _LIBRARIES[provider],
        )
    return session
