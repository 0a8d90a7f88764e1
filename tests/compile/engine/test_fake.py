"""The stand-in for TensorRT refuses what a version does not have, as its bindings do."""

from typing import Any

import pytest

from tests.compile.engine.fake import Said
from tests.oracles.tensorrt_api import RTX, VERSIONS, Api, stand_in


@pytest.fixture
def old() -> Any:
    """TensorRT 10.7."""
    return Said("10.7").variant.module


def test_an_unknown_name_raises(old: Any) -> None:
    for wrong in (
        lambda: old.ComputeCapability,  # that of RTX
        lambda: old.BuilderFlag.REQUIRE_USER_ALLOCATION,
        lambda: old.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY,
        lambda: old.Builder(None).build_engine,
        lambda: setattr(old.Builder(None).create_builder_config(), "max_workspace_size", 1),
        lambda: setattr(old.Builder(None).create_builder_config(), "num_compute_capabilities", 1),
        lambda: setattr(old.Builder(None).create_builder_config(), "set_flag", 1),
    ):
        with pytest.raises(AttributeError):
            wrong()


def test_a_wrong_argument_raises(old: Any) -> None:
    config = old.Builder(None).create_builder_config()
    cache = config.create_timing_cache(b"")
    for wrong in (
        lambda: config.set_flag("TF32"),
        lambda: config.set_timing_cache(None, False),
        lambda: config.set_timing_cache(cache),
        lambda: config.set_timing_cache(cache, False, 1),
        lambda: config.set_timing_cache(cache, ignore=False),
        lambda: config.create_timing_cache("text"),
    ):
        with pytest.raises(TypeError):
            wrong()
    assert config.set_timing_cache(cache=cache, ignore_mismatch=False)


def test_a_callback_of_an_unknown_name_raises(old: Any) -> None:
    with pytest.raises(AssertionError, match="calls no"):
        type("Monitor", (old.IProgressMonitor,), {"phase_end": None})


def test_what_a_test_does_not_play_raises(old: Any) -> None:
    with pytest.raises(NotImplementedError, match="plays no Runtime"):
        old.Runtime  # noqa: B018
    with pytest.raises(NotImplementedError, match="plays no Builder"):
        old.Builder(None).reset()
    assert stand_in("10.7").__version__ == "10.7.0"


def test_the_names_of_tensorrt_for_rtx_are_those_that_are_installed() -> None:
    rtx = pytest.importorskip("tensorrt_rtx")
    assert rtx.__version__.startswith("1.7.")
    api = Api(RTX)
    for kind, names in api.classes.items():
        missing = [name for name in names if name and not hasattr(getattr(rtx, kind), name)]
        assert not missing, f"{kind} has no {missing}"
    for kind, members in api.enums.items():
        assert set(getattr(rtx, kind).__members__) == set(members)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_knows_each_version(version: str) -> None:
    api = Api(version)
    assert "execute_async_v3" in api.classes["IExecutionContext"]
    assert "TF32" in api.enums["BuilderFlag"]
    assert ("IRuntimeCache" in api.classes) == (version == RTX)
