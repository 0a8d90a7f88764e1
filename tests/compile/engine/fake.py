"""A TensorRT that keeps what a build tells it, with the API of a version and nothing else."""

from typing import Any

import onnx

from difftool.runtime.variants import Variant
from tests.oracles.tensorrt_api import RTX, stand_in


class Said:
    """The record of a build. `variant` is the TensorRT to build with; `engine` is the result.

    `refused` names setters that fail, each for as many calls as it says.
    """

    def __init__(self, version: str, engine: bytes | None = b"engine", **refused: int) -> None:
        self.engine, self.graph = engine, b""
        self.profiles: list[dict[str, tuple[Any, ...]]] = []
        self.flags: dict[str, bool] = {}
        self.config: Any = None
        self.gpus: dict[int, str] = {}
        self.timings: list[bytes] = []
        self.network_flags = -1
        self.refused = refused
        self.variant = _variant(version, self)

    def build(self) -> bytes | None:
        """Return the engine; None if the build fails."""
        return self.engine

    def refuses(self, setter: str) -> bool:
        """Tell if this call of a setter fails."""
        self.refused[setter] = self.refused.get(setter, 0) - 1
        return self.refused[setter] >= 0


def _variant(version: str, said: Said) -> Variant:
    class ITensor:
        def __init__(self, value: onnx.ValueInfoProto) -> None:
            dims = value.type.tensor_type.shape.dim
            self.name = value.name
            self.shape = [-1 if dim.dim_param else dim.dim_value for dim in dims]

    class INetworkDefinition:
        def __init__(self, flags: int) -> None:
            said.network_flags = flags
            self._inputs: list[Any] = []

        @property
        def num_inputs(self) -> int:
            return len(self._inputs)

        def get_input(self, index: int) -> Any:
            return self._inputs[index]

    class ITimingCache:
        def __init__(self, data: bytes) -> None:
            said.timings.append(data)
            self._data = data

        def serialize(self) -> bytes:
            return self._data + b" and new ones"

    class IBuilderConfig:
        progress_monitor: Any = None
        num_compute_capabilities = 1
        hardware_compatibility_level: Any = None

        def __init__(self) -> None:
            said.config = self

        def clear_flag(self, flag: Any) -> None:
            said.flags[flag.name] = False

        def set_flag(self, flag: Any) -> None:
            said.flags[flag.name] = True

        def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
            said.gpus[index] = compute_capability.name
            return not said.refuses("set_compute_capability")

        def add_optimization_profile(self, profile: Any) -> int:
            said.profiles.append(profile._shapes)
            return -1 if said.refuses("add_optimization_profile") else len(said.profiles) - 1

        def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
            if said.refuses("create_timing_cache"):
                return None
            return trt.ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            assert not ignore_mismatch
            return not said.refuses("set_timing_cache")

    class IOptimizationProfile:
        def __init__(self) -> None:
            self._shapes: dict[str, tuple[Any, ...]] = {}

        def set_shape(self, input: str, *shapes: Any) -> None:
            self._shapes[input] = shapes

    class Builder:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def create_network(self, flags: int = 0) -> Any:
            return trt.INetworkDefinition(flags)

        def create_builder_config(self) -> Any:
            return trt.IBuilderConfig()

        def create_optimization_profile(self) -> Any:
            return trt.IOptimizationProfile()

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            engine = said.build()
            if engine is None:
                self._logger.log(trt.ILogger.WARNING, "careful")
                self._logger.log(trt.ILogger.ERROR, "the  first\nerror")
                self._logger.log(trt.ILogger.ERROR, "what follows from it")
            config.progress_monitor.phase_start("Building", None, 2)
            config.progress_monitor.step_complete("Building", 0)
            config.progress_monitor.phase_finish("Building")
            return engine

    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            self._network = network

        def supports_operator(self, op_name: str) -> bool:
            return True

        def parse(self, model: bytes) -> bool:
            said.graph = model
            inputs = onnx.load_from_string(model).graph.input
            self._network._inputs += [trt.ITensor(value) for value in inputs]
            return True

    trt = stand_in(
        version,
        *(Builder, IBuilderConfig, INetworkDefinition, IOptimizationProfile),
        *(ITensor, ITimingCache, OnnxParser),
    )
    return Variant("tensorrt-rtx" if version == RTX else "tensorrt", trt.__version__, trt)
