"""TensorRT is told the right things, in each version by calls that this version has."""

from pathlib import Path
from typing import Any

import onnx
import pytest

from difftool.bundle import STEP, EngineKey
from difftool.compile.engine.build import build_engine
from difftool.errors import ArtefactError
from tests.compile.engine.fake import Said
from tests.fixtures import ENGINE_KEY
from tests.oracles.tensorrt_api import PROPER, RTX, VERSIONS

PROFILE = (2, 3, 5)


def key_for(said: Said, **changes: Any) -> EngineKey:
    """Return the key of an engine of this TensorRT."""
    variant = said.variant
    own = {"flavour": variant.name, "version": variant.version, "gpus": ("sm89",)}
    return ENGINE_KEY.model_copy(update={**own, "profile": PROFILE, **changes})


@pytest.fixture
def model(tiny_bundle: Path) -> onnx.ModelProto:
    return onnx.load(tiny_bundle / STEP)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_what_a_build_calls(version: str, model: onnx.ModelProto) -> None:
    said = Said(version)
    engine, timing = build_engine(model, key_for(said), said.variant)
    assert engine == b"engine"
    assert timing == (b"" if version == RTX else b" and new ones")
    assert said.gpus == ({0: "SM89"} if version == RTX else {})


def test_batches_are_those_of_the_profile_and_tables_have_room(model: onnx.ModelProto) -> None:
    said = Said("11.4")
    build_engine(model, key_for(said), said.variant)
    (shapes,) = said.profiles
    image = (1, 8, 8)
    assert shapes["x"] == tuple((n, *image) for n in PROFILE)
    assert shapes["row"] == ((2,), (3,), (5,))
    least, expected, most = shapes["history"]
    assert (least, expected) == ((1, 2, *image), (2, 3, *image))
    assert most[0] >= 4  # PLMS and UniPC keep three, a sampler of one's own may keep more
    rows, columns = shapes["table"][2]
    assert rows >= 100_000
    assert columns - most[0] == shapes["table"][0][1] - least[0]
    assert shapes["cond_table"][2][0] * shapes["cond_table"][2][1] < 2**31


def test_a_build_for_several_batches_has_a_profile_for_each(model: onnx.ModelProto) -> None:
    said = Said(RTX)
    build_engine(model, key_for(said, profile=(1, 64, 64), batches=(1, 16, 64)), said.variant)
    batches = [tuple(shape[0] for shape in shapes["x"]) for shapes in said.profiles]
    assert batches == [(1, 1, 1), (2, 16, 16), (17, 64, 64)]
    assert len({shapes["table"] for shapes in said.profiles}) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_networks_are_strongly_typed_and_float32_is_float32(
    version: str, model: onnx.ModelProto
) -> None:
    said = Said(version)
    build_engine(model, key_for(said), said.variant)
    typed = said.variant.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert said.network_flags == 1 << int(typed)
    own = {"REQUIRE_USER_ALLOCATION": True} if version == RTX else {}  # CUDA graphs need it
    assert said.flags == {"TF32": False, **own}
    build_engine(model, key_for(said, refit=True), said.variant)
    assert said.flags == {"TF32": False, "REFIT": True, **own}
    build_engine(model, key_for(said, precision="tf32"), said.variant)
    assert said.flags["TF32"] is True


@pytest.mark.parametrize("version", PROPER)
def test_an_engine_runs_on_all_gpus_of_a_compute_capability(
    version: str, model: onnx.ModelProto
) -> None:
    """TensorRT has it since 10.9. Before, an engine is for GPUs of one name."""
    said = Said(version)
    build_engine(model, key_for(said), said.variant)
    level = said.config.hardware_compatibility_level
    assert (level and level.name) == (None if version == "10.7" else "SAME_COMPUTE_CAPABILITY")


def test_timings_of_the_last_build_are_given_to_the_next(model: onnx.ModelProto) -> None:
    said = Said("11.4")
    engine, timing = build_engine(model, key_for(said), said.variant, timing=b"old ones")
    assert said.timings == [b"old ones"]
    assert (engine, timing) == (b"engine", b"old ones and new ones")


@pytest.mark.parametrize("refusal", ["create_timing_cache", "set_timing_cache"])
def test_damaged_timings_are_made_anew(refusal: str, model: onnx.ModelProto) -> None:
    said = Said("10.13", **{refusal: 1})
    engine, timing = build_engine(model, key_for(said), said.variant, timing=b"damaged")
    assert said.timings[-1] == b""
    assert (engine, timing) == (b"engine", b" and new ones")
    said = Said("10.13", **{refusal: 2})  # timings are never a reason not to build
    assert build_engine(model, key_for(said), said.variant) == (b"engine", b"")


@pytest.mark.parametrize(
    ("refusal", "wrong"),
    [
        ("set_compute_capability", "does not build for sm89"),
        ("add_optimization_profile", "refuses batches of 2 to 5"),
    ],
)
def test_a_refused_setting_is_an_error(refusal: str, wrong: str, model: onnx.ModelProto) -> None:
    said = Said(RTX, **{refusal: 1})
    with pytest.raises(ArtefactError, match=rf"TensorRT for RTX 1\.7\.0 {wrong}: no reason"):
        build_engine(model, key_for(said), said.variant)


def test_progress_is_told_by_phase_and_step(model: onnx.ModelProto) -> None:
    told: list[tuple[str, int, int]] = []
    said = Said("11.4")
    build_engine(model, key_for(said), said.variant, on_progress=lambda *step: told.append(step))
    assert told == [("Building", 0, 2), ("Building", 1, 2)]


def test_the_first_error_is_the_reason_of_a_failed_build(model: onnx.ModelProto) -> None:
    said = Said("11.4", engine=None)
    with pytest.raises(ArtefactError) as caught:
        build_engine(model, key_for(said), said.variant)
    assert caught.value.message == "TensorRT 11.4.0 built no engine: the first error"
