"""Build an engine's bytes from an ONNX step graph."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import onnx

from difftool.bundle import EngineKey
from difftool.compile.engine.preflight import parser_errors, problems, refuse
from difftool.compile.engine.profile import ranges
from difftool.errors import ArtefactError
from difftool.runtime.backends.table import TF32
from difftool.runtime.engines import profiles
from difftool.runtime.variants import Variant

Progress = Callable[[str, int, int], None]  # phase, steps done, total steps


def build_engine(
    model: onnx.ModelProto,
    key: EngineKey,
    variant: Variant,
    *,
    timing: bytes = b"",
    on_progress: Progress | None = None,
) -> tuple[bytes, bytes]:
    """Compile a step graph for `key`. Return the engine, and TensorRT's timings of its kernels.

    `timing` holds the timings of an earlier build. TensorRT for RTX measures nothing and returns
    no timings. `on_progress` is called from other threads.

    Raises:
        ArtefactError: TensorRT does not support the graph, or fails to build it.
    """
    stop = threading.Event()
    # TensorRT calls back into Python, and ignores exceptions raised there, such as Ctrl-C raises in
    # the main thread. So the build runs in another thread, and the main thread tells it to stop.
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(_build, model, key, variant, timing, on_progress, stop)
        try:
            return building.result()
        except KeyboardInterrupt:
            stop.set()
            raise


def _build(
    model: onnx.ModelProto,
    key: EngineKey,
    variant: Variant,
    timing: bytes,
    on_progress: Progress | None,
    stop: threading.Event,
) -> tuple[bytes, bytes]:
    trt = variant.module
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    refuse(problems(model, parser.supports_operator), variant.title)
    if not parser.parse(_without_unused_inputs(model).SerializeToString()):
        refuse(parser_errors(parser) or [logger.first or "no reason given"], variant.title)

    config = builder.create_builder_config()

    def failed(what: str) -> ArtefactError:
        why = logger.first or "no reason given"
        return ArtefactError(
            f"{variant.title} {variant.version} {what}: {why}",
            "try another `precision` or a smaller `profile`",
        )

    _set_flags(variant, config, key)
    ahead_of_time = key.gpus if key.flavour == "tensorrt-rtx" else ()
    if ahead_of_time:
        config.num_compute_capabilities = len(ahead_of_time)
    for index, gpu in enumerate(ahead_of_time):
        if not config.set_compute_capability(trt.ComputeCapability.__members__[gpu.upper()], index):
            raise failed(f"does not build for {gpu}")
    for batch in profiles(key):
        if config.add_optimization_profile(_profile(builder, network, batch)) < 0:
            raise failed(f"refuses batches of {batch[0]} to {batch[2]}")
    monitor = _monitor(trt, on_progress, stop)
    config.progress_monitor = monitor
    cache = _timing_cache(config, variant, timing)

    engine = builder.build_serialized_network(network, config)
    if monitor.interrupt is not None:
        raise monitor.interrupt
    if engine is None:
        raise failed("built no engine")
    return bytes(engine), bytes(cache.serialize()) if cache is not None else b""


def _strongly_typed(trt: Any) -> int:
    """Return the flag for networks that keep the graph's precisions; 0 if there is none.

    TensorRT 11 may have no other networks, and so no flag.
    """
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _without_unused_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph without inputs that no node reads, since TensorRT would have to bind them.

    A network without conditioning, for example, does not read its cond_table.
    """
    used = {name for node in model.graph.node for name in node.input}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.input[:]
    result.graph.input.extend(value for value in model.graph.input if value.name in used)
    return result


def _set_flags(variant: Variant, config: Any, key: EngineKey) -> None:
    trt = variant.module
    # TF32 rounds the inputs of float32 products to 10 bits, which is too coarse for parity.
    set_tf32 = config.set_flag if key.precision == TF32 else config.clear_flag
    set_tf32(trt.BuilderFlag.TF32)
    if key.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if key.flavour == "tensorrt-rtx":
        # Otherwise a run may allocate memory, which no CUDA graph can capture.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    elif variant.by_capability:
        level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
        config.hardware_compatibility_level = level


def _profile(builder: Any, network: Any, batch: tuple[int, int, int]) -> Any:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        profile.set_shape(tensor.name, *ranges(tensor.name, tuple(tensor.shape), batch))
    return profile


def _timing_cache(config: Any, variant: Variant, timing: bytes) -> Any:
    """Give the builder the timings of an earlier build, or none if it refuses them."""
    if variant.name == "tensorrt-rtx":
        return None
    for data in (timing, b""):
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _logger(trt: Any) -> Any:
    """Return a logger that prints nothing and keeps the first error's text in `first`."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.first = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR) and not self.first:
                self.first = " ".join(message.split())[:300]  # later ones follow from it

    return Logger()


def _monitor(trt: Any, on_progress: Progress | None, stop: threading.Event) -> Any:
    """Return a monitor that reports progress. An exception in it, or `stop`, ends the build."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupt: BaseException | None = None
            self._steps: dict[str, int] = {}
            self._lock = threading.Lock()  # TensorRT may call from several threads

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            with self._lock:
                self._steps[name] = steps
            self._tell(name, 0)

        def phase_finish(self, name: str) -> None:
            with self._lock:
                self._steps.pop(name, None)

        def step_complete(self, name: str, step: int) -> bool:
            self._tell(name, step + 1)
            return self.interrupt is None and not stop.is_set()

        def _tell(self, name: str, done: int) -> None:
            # An exception must not pass through TensorRT's code.
            try:
                if on_progress is not None:
                    on_progress(name, done, self._steps.get(name, done))
            except BaseException as error:
                self.interrupt = error

    return Monitor()
