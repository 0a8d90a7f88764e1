"""TensorRT is told the right things: a stand-in for the variant from NVIDIA's index keeps them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from difftool.bundle import STEP
from difftool.compile.engine.build import build_engine
from difftool.errors import ArtefactError
from difftool.runtime.variants import Variant
from tests.fixtures import ENGINE_KEY

KEY = ENGINE_KEY.model_copy(
    update={"flavour": "tensorrt", "version": "11", "gpus": ("NVIDIA H",), "profile": (2, 3, 5)}
)


class Said:
    """A TensorRT that keeps what it is told and builds `engine`."""

    def __init__(self, engine: bytes | None = b"engine") -> None:
        self.shapes: dict[str, tuple[Any, ...]] = {}
        self.flags: dict[str, bool] = {}
        self.timing: bytes | None = None
        self.network_flags = -1
        said = self

        class Config:
            progress_monitor: Any = None

            def clear_flag(self, flag: str) -> None:
                said.flags[flag] = False

            def set_flag(self, flag: str) -> None:
                said.flags[flag] = True

            def add_optimization_profile(self, profile: Any) -> None:
                pass

            def create_timing_cache(self, data: bytes) -> Any:
                said.timing = data
                return SimpleNamespace(serialize=lambda: data + b" and new ones")

            def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> None:
                assert not ignore_mismatch

        class Profile:
            def set_shape(self, name: str, *shapes: Any) -> None:
                said.shapes[name] = shapes

        class Network:
            def __init__(self, flags: int) -> None:
                said.network_flags = flags
                self.inputs: list[Any] = []

            @property
            def num_inputs(self) -> int:
                return len(self.inputs)

            def get_input(self, index: int) -> Any:
                return self.inputs[index]

        class Builder:
            create_network = staticmethod(Network)
            create_builder_config = staticmethod(Config)
            create_optimization_profile = staticmethod(Profile)

            def __init__(self, logger: Any) -> None:
                self.logger = logger

            def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
                if engine is None:
                    self.logger.log(Logger.WARNING, "careful")
                    self.logger.log(Logger.ERROR, "the  first\nerror")
                    self.logger.log(Logger.ERROR, "what follows from it")
                config.progress_monitor.phase_start("Building", None, 2)
                config.progress_monitor.step_complete("Building", 0)
                config.progress_monitor.phase_finish("Building")
                return engine

        class Parser:
            def __init__(self, network: Network, logger: Any) -> None:
                self.network = network

            def supports_operator(self, name: str) -> bool:
                return True

            def parse(self, data: bytes) -> bool:
                for value in onnx.load_from_string(data).graph.input:
                    dims = value.type.tensor_type.shape.dim
                    shape = [-1 if dim.dim_param else dim.dim_value for dim in dims]
                    self.network.inputs.append(SimpleNamespace(name=value.name, shape=shape))
                return True

        class Logger:
            WARNING, ERROR, INTERNAL_ERROR = 2, 1, 0

        self.variant = Variant(
            "tensorrt",
            "11",
            SimpleNamespace(
                Builder=Builder,
                OnnxParser=Parser,
                ILogger=Logger,
                IProgressMonitor=object,
                BuilderFlag=SimpleNamespace(TF32="TF32", REFIT="REFIT"),
                NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=3),
            ),
        )


@pytest.fixture
def model(tiny_bundle: Path) -> onnx.ModelProto:
    return onnx.load(tiny_bundle / STEP)


def test_batches_are_those_of_the_profile_and_tables_have_room(model: onnx.ModelProto) -> None:
    said = Said()
    build_engine(model, KEY, said.variant)
    image = (1, 8, 8)
    assert said.shapes["x"] == tuple((n, *image) for n in KEY.profile)
    assert said.shapes["row"] == ((2,), (3,), (5,))
    least, expected, most = said.shapes["history"]
    assert (least, expected) == ((1, 2, *image), (2, 3, *image))
    assert most[0] >= 4  # PLMS and UniPC keep three, a sampler of one's own may keep more
    rows, columns = said.shapes["table"][2]
    assert rows >= 100_000
    assert columns - most[0] == said.shapes["table"][0][1] - least[0]
    assert said.shapes["cond_table"][2][0] * said.shapes["cond_table"][2][1] < 2**31


def test_networks_are_strongly_typed_and_float32_is_float32(model: onnx.ModelProto) -> None:
    said = Said()
    build_engine(model, KEY, said.variant)
    assert said.network_flags == 1 << 3
    assert said.flags == {"TF32": False}
    build_engine(model, KEY.model_copy(update={"refit": True}), said.variant)
    assert said.flags == {"TF32": False, "REFIT": True}


def test_timings_of_the_last_build_are_given_to_the_next(model: onnx.ModelProto) -> None:
    said = Said()
    engine, timing = build_engine(model, KEY, said.variant, timing=b"old ones")
    assert said.timing == b"old ones"
    assert (engine, timing) == (b"engine", b"old ones and new ones")


def test_progress_is_told_by_phase_and_step(model: onnx.ModelProto) -> None:
    told: list[tuple[str, int, int]] = []
    build_engine(model, KEY, Said().variant, on_progress=lambda *step: told.append(step))
    assert told == [("Building", 0, 2), ("Building", 1, 2)]


def test_the_first_error_is_the_reason_of_a_failed_build(model: onnx.ModelProto) -> None:
    with pytest.raises(ArtefactError) as caught:
        build_engine(model, KEY, Said(engine=None).variant)
    assert caught.value.message == "TensorRT 11 built no engine: the first error"
