"""A TensorRT that runs a step graph on ONNX Runtime's CPU, with the API of a version.

Its engines hold their graph and their profiles, as `as_engine` writes them. Its contexts get
addresses, which lie in the fake device's memory: what the backend binds, and where, is what is
computed on.
"""

import ctypes
import json
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from difftool.runtime.variants import Variant
from tests.oracles.tensorrt_api import RTX, stand_in
from tests.runtime.cuda.fake import FakeDevice

MEMORY = (1000, 9000, 5000)  # bytes that a context of each profile needs
_MAGIC = b"an engine"


def as_engine(graph: bytes, batches: Sequence[tuple[int, int, int]]) -> bytes:
    """Return an engine of a step graph, with a profile for each of these batches."""
    return b"\n".join([_MAGIC, json.dumps(batches).encode(), graph])


class Played:
    """A TensorRT, and what was asked of it. `refused` are the names of calls that fail."""

    def __init__(self, version: str, device: FakeDevice) -> None:
        self.device = device
        self.contexts: list[dict[str, Any]] = []  # what each was given
        self.alive: list[weakref.ref[Any]] = []  # contexts
        self.freed_early: list[str] = []
        self.loaded: list[bytes] = []
        self.refused: set[str] = set()
        trt = _module(version, self)
        self.variant = Variant(
            "tensorrt-rtx" if version == RTX else "tensorrt", trt.__version__, trt
        )

    def refuses(self, call: str) -> bool:
        return call in self.refused


def _array(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


def _module(version: str, played: Played) -> Any:
    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
            magic, _, rest = serialized_engine.partition(b"\n")
            if magic != _MAGIC:
                self._logger.log(trt.ILogger.ERROR, "magic tag\n does not match")
                return None
            batches, _, graph = rest.partition(b"\n")
            return trt.ICudaEngine(graph, json.loads(batches), self._logger)

    class ICudaEngine:
        def __init__(self, graph: bytes, batches: list[list[int]], logger: Any) -> None:
            options, on_cpu = onnxruntime.SessionOptions(), ["CPUExecutionProvider"]
            options.intra_op_num_threads = 1
            self._session = onnxruntime.InferenceSession(graph, options, providers=on_cpu)
            self._inputs = [node.name for node in self._session.get_inputs()]
            self._outputs = [node.name for node in self._session.get_outputs()]
            self._batches, self._logger = batches, logger

        @property
        def num_io_tensors(self) -> int:
            return len(self._inputs + self._outputs)

        def get_tensor_name(self, index: int) -> str:
            return (self._inputs + self._outputs)[index]

        def get_tensor_mode(self, name: str) -> Any:
            return trt.TensorIOMode.INPUT if name in self._inputs else trt.TensorIOMode.OUTPUT

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
            return [(number,) for number in self._batches[profile_index]]

        def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
            return MEMORY[profile_index]

        def create_runtime_config(self) -> Any:
            return trt.IRuntimeConfig()

        def create_execution_context(self, how: Any) -> Any:
            if played.refuses("create_execution_context"):
                return None
            config = how if version == RTX else None
            strategy = config._strategy if config else how
            return trt.IExecutionContext(self, strategy, config)

    class IRuntimeConfig:
        dynamic_shapes_kernel_specialization_strategy: Any = None

        def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
            self._strategy = strategy

        def create_runtime_cache(self) -> Any:
            return trt.IRuntimeCache()

        def set_runtime_cache(self, cache: Any) -> bool:
            self._cache = weakref.ref(cache)  # as in C++: it does not keep it alive
            return not played.refuses("set_runtime_cache")

    class IRuntimeCache:
        def deserialize(self, blob: bytes) -> bool:
            played.loaded.append(blob)
            return True

        def serialize(self) -> bytes:
            return b"kernels"

    class IExecutionContext:
        def __init__(self, engine: Any, strategy: Any, config: Any) -> None:
            assert strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED
            self._engine, self._logger = engine, engine._logger
            self._needed = [weakref.ref(config), config._cache] if config else []
            self._profile, self._memory, self._addresses = 0, (0, 0), {}
            self._shapes: dict[str, tuple[int, ...]] = {}
            eager = config and config.dynamic_shapes_kernel_specialization_strategy.name
            self._seen = {"shapes": self._shapes, "strategy": eager}
            played.contexts.append(self._seen)
            played.alive.append(weakref.ref(self))

        def __del__(self) -> None:
            if any(needed() is None for needed in self._needed):
                played.freed_early.append("config or cache")

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            assert stream_handle == played.device.stream
            self._profile = profile_index
            self._shapes.clear()
            return not played.refuses("set_optimization_profile_async")

        def set_device_memory(self, memory: int, size: int) -> None:
            assert memory % 256 == 0
            self._memory = self._seen["memory"] = memory, size

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self._shapes[name] = shape
            least, _, most = self._engine._batches[self._profile]
            fits = name != "x" or least <= shape[0] <= most
            return fits and not played.refuses("set_input_shape")

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._addresses[name] = memory
            return not played.refuses("set_tensor_address")

        def is_stream_capturable(self, stream: int) -> bool:
            return not played.refuses("is_stream_capturable")

        def execute_async_v3(self, stream_handle: int) -> bool:
            device, engine, addresses = played.device, self._engine, dict(self._addresses)
            assert stream_handle == device.stream, "not the stream of the kernels"
            begin, size = self._memory
            assert size >= MEMORY[self._profile], "too little memory"
            capturing = device._recording is not None
            if played.refuses("execute_async_v3") or (capturing and played.refuses("capture")):
                self._logger.log(trt.ILogger.ERROR, "it  cannot\nbe done")
                return False

            def run() -> None:
                _array(begin, (size,), np.uint8)[...] = 1  # all of the memory is the context's
                feed = {}
                for name in engine._inputs:
                    dtype = np.int64 if name == "row" else np.float32
                    feed[name] = _array(addresses[name], self._shapes[name], dtype)
                found = engine._session.run(engine._outputs, feed)
                for name, value in zip(engine._outputs, found, strict=True):
                    _array(addresses[name], value.shape, value.dtype)[...] = value

            device.enqueue("engine", run)
            return True

    trt = stand_in(version, Runtime, ICudaEngine, IRuntimeConfig, IRuntimeCache, IExecutionContext)
    return trt
