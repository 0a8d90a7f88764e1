"""TensorRT and TensorRT for RTX: engines that were built before, on the GPU of this machine."""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np

from difftool.bundle import PRECISIONS, Bundle
from difftool.errors import ArtefactError, DifftoolError, MissingDependencyError, UsageError
from difftool.log import logger
from difftool.runtime.backends.table import TF32, Asked
from difftool.runtime.cuda.backend import DeviceBackend
from difftool.runtime.cuda.cuda_device import CudaDevice, open_device
from difftool.runtime.cuda.device import Bound, Buffer, Device, Launch
from difftool.runtime.cuda.room import Graphs
from difftool.runtime.engine_cache import EngineCache
from difftool.runtime.engines import (
    Engine,
    Wanted,
    choose_engine,
    find_engines,
    no_gpu,
    profiles,
    rebuilding,
    widening,
)
from difftool.runtime.variants import Variant, installed_variants, not_installed

_log = logger(__name__)


_ALIGNED: Final = 256  # bytes; a context's memory begins at a multiple of these


class _Context:
    """An execution context, and all that NVIDIA wants to outlive it."""

    def __init__(self, context: Any, *kept: Any) -> None:
        self.context, self._kept = context, kept

    def __del__(self) -> None:
        del self.context  # before the others


class TensorRtEngine:
    """An engine, deserialized. Every binding has an execution context of its own.

    All contexts compute in one piece of device memory, since only one at a time is on the stream.
    """

    def __init__(
        self, bundle: Bundle, engine: Engine, variant: Variant, device: Device, gpu: str
    ) -> None:
        trt = variant.module
        self._bundle, self._key, self._device = bundle, engine.key, device
        self._trt, self._cache = trt, EngineCache()
        self._again = f"build it again: {rebuilding(bundle, engine.key)}"
        self._kept_at = self._cache.runtime_path(engine.sha256, gpu)
        self._logger = _logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine.read())
        if self._engine is None:
            raise self._failed(f"{variant.title} {variant.version} refuses {engine.path}")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self.inputs = frozenset[str](
            name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        )
        self._scratch: Buffer | None = None  # what contexts compute in, and how much it holds
        self._room = 0

    @property
    def sizes(self) -> tuple[int, int]:
        """Return the fewest and the most samples of its profile."""
        return self._key.profile[0], self._key.profile[2]

    @property
    def best(self) -> int:
        """Return the number of samples that it was tuned for, the largest if these are several."""
        return self._key.profile[1]

    def wider(self, size: int) -> str:
        """Return the command that builds one for `size` samples."""
        return f"run: {widening(self._bundle, self._key, size)}"

    def bind(self, sides: Sequence[Mapping[str, Buffer]]) -> Bound:
        """Make one context for both sides, which have the same shapes; a run sets the addresses."""
        rtx = self._key.flavour == "tensorrt-rtx"
        user_managed = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        config, kept = self._rtx_config(user_managed) if rtx else (user_managed, None)
        context = self._engine.create_execution_context(config)
        if context is None:
            raise self._failed("TensorRT cannot run its engine")
        size = sides[0]["x"].shape[0]
        fits = [size <= batch[2] for batch in profiles(self._key)]
        index = fits.index(True) if any(fits) else -1  # a foreign bundle may have any key
        stream = self._device.stream
        if index and not context.set_optimization_profile_async(index, stream):
            raise self._failed(f"TensorRT cannot run a batch of {size}")
        self._set_memory(context, index)
        for name in self.inputs:
            shape = sides[0][name].shape
            if not context.set_input_shape(name, shape):
                least, _, most = self._engine.get_tensor_profile_shape(name, index)
                raise UsageError(
                    f"{name} is {shape}, and the engine takes {tuple(least)} to {tuple(most)}",
                    "use a program of fewer rows, or another backend",
                )
        held = _Context(context, config, kept, self._scratch)
        # TensorRT cannot be asked, so there a capture is tried.
        capturable = not rtx or bool(context.is_stream_capturable(stream))
        if not capturable:
            _log.warning("the engine cannot be captured: CUDA graphs are off")
        return Bound(
            [self._run(held, each) for each in sides], capturable, lambda: self._keep(kept)
        )

    def _set_memory(self, context: Any, index: int) -> None:
        """Let a context compute in the shared memory, which grows if its profile needs more.

        Contexts of before keep what they had: graphs may have captured its address.
        """
        size = self._engine.get_device_memory_size_for_profile_v2(index)
        if self._scratch is None or size > self._room:
            self._scratch = self._device.allocate((size + _ALIGNED,), np.uint8)
            self._room = size
        begin = -(-self._scratch.address // _ALIGNED) * _ALIGNED
        context.set_device_memory(begin, self._room)

    def _run(self, held: _Context, tensors: Mapping[str, Buffer]) -> Launch:
        addresses = {name: buffer.address for name, buffer in tensors.items()}

        def run() -> None:
            for name, address in addresses.items():
                if not held.context.set_tensor_address(name, address):
                    raise self._failed(f"TensorRT takes no memory for {name}")
            if not held.context.execute_async_v3(self._device.stream):
                raise self._failed("TensorRT failed to run its engine")

        return run

    def _failed(self, what: str) -> ArtefactError:
        return ArtefactError(f"{what}: {self._logger.last}", self._again)

    def _rtx_config(self, strategy: Any) -> tuple[Any, Any]:
        """Return how RTX runs, and its cache of the kernels that it compiles for this GPU."""
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        # By default it starts with slow kernels, and compiles better ones during the runs. A
        # captured graph would keep the slow ones.
        strategies = self._trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        cache = config.create_runtime_cache()
        with contextlib.suppress(DifftoolError, OSError):  # a cache is never a reason not to run
            if data := self._cache.read(self._kept_at):
                cache.deserialize(data)  # it refuses the data of another GPU or version
        return config, cache if config.set_runtime_cache(cache) else None

    def _keep(self, cache: Any) -> None:
        with contextlib.suppress(DifftoolError, OSError):
            if cache is not None and (data := cache.serialize()) is not None:
                self._cache.write(self._kept_at, bytes(data))


def open_asked(bundle: Bundle, asked: Asked) -> DeviceBackend:
    """Open the backend of the table's row."""
    return open_tensorrt(bundle, asked.precision, number=asked.device, trusted=asked.trusted)


def open_tensorrt(
    bundle: Bundle,
    precision: str = "fp32",
    *,
    number: int = 0,
    trusted: Collection[str] = (),
    graphs: Graphs = "pairs",
) -> DeviceBackend:
    """Open the engine of a bundle for the GPU `number` and the TensorRT that is installed.

    `trusted` are the sha256 of engines that were built elsewhere and may run.

    Raises:
        MissingDependencyError: there is no TensorRT, no GPU, or no engine for them.
        ArtefactError: the engine is damaged, or is not trusted.
    """
    variants = installed_variants()
    if not variants:
        raise not_installed()
    engines = find_engines(bundle, trusted=trusted)
    try:
        device = open_device(number)
    except MissingDependencyError as error:
        raise no_gpu(engines, error.message) from error
    variant, engine = _choose(bundle, engines, variants, device, precision)
    opened = TensorRtEngine(bundle, engine, variant, device, device.arch)
    name = "tensorrt" if precision == "fp32" else f"tensorrt:{precision}"
    return DeviceBackend(name, bundle, device, opened, graphs)


def _choose(
    bundle: Bundle,
    engines: Sequence[Engine],
    variants: Sequence[Variant],
    device: CudaDevice,
    precision: str,
) -> tuple[Variant, Engine]:
    """Return the engine that fits. If only one of another precision does, the error names that."""
    gpu = device.arch.replace("_", ""), device.name
    misses = []
    others = [other for other in (*PRECISIONS, TF32) if other != precision]
    for asked in (precision, *others):
        for variant in variants:
            wanted = Wanted(variant.name, variant.version, gpu, asked)
            try:
                engine = choose_engine(engines, wanted, bundle)
            except MissingDependencyError as error:
                misses.append(error)
                continue
            if asked == precision:
                return variant, engine
            raise MissingDependencyError(
                f"{bundle.path} has an engine in {asked} for this GPU, and none in {precision}",
                f"choose `precision={asked}`, or: {misses[0].hint}",
            )
    raise misses[0]


def _logger(trt: Any) -> Any:
    """Return a logger that prints nothing and keeps the last error's text."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = "no reason given"

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last = " ".join(message.split())[:300]

    return Logger()
