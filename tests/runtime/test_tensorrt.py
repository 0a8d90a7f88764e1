"""The backend of TensorRT, in each version by calls that this version has."""

import gc
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from difftool.bundle import STEP, Bundle
from difftool.errors import ArtefactError, UsageError
from difftool.runtime import Model, load
from difftool.runtime.backends.tensorrt import TensorRtEngine
from difftool.runtime.cuda.backend import DeviceBackend
from difftool.runtime.engine_cache import EngineCache
from difftool.runtime.engines import Engine, profiles
from tests.oracles.tensorrt_api import RTX, VERSIONS
from tests.runtime.conftest import Keep, key_for
from tests.runtime.cuda.fake import FakeDevice
from tests.runtime.fake_tensorrt import Played, as_engine

ONE = {"profile": (2, 4, 8)}
SEVERAL = {"profile": (1, 6, 6), "batches": (1, 4, 6)}
Open = Callable[..., tuple[Model, Played]]


@pytest.fixture
def opened(bundle: Bundle, cache: EngineCache, keep: Keep) -> Open:
    """Open the bundle on a TensorRT of a version, with an engine of these batches."""

    def open_on(
        version: str = RTX, data: bytes = b"", batches: dict[str, object] = ONE
    ) -> tuple[Model, Played]:
        device = FakeDevice()
        trt = Played(version, device)
        variant = trt.variant
        data = data or as_engine(bundle.read(STEP), profiles(key_for(bundle, **batches)))
        record = keep(data, flavour=variant.name, version=variant.version, **batches)
        engine = Engine(cache.path(record), record.key, record.sha256)
        made = TensorRtEngine(bundle, engine, variant, device, "sm_89")
        return Model(bundle, DeviceBackend("tensorrt", bundle, device, made)), trt

    return open_on


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_runs_on_the_drivers_buffers(
    tiny_bundle: Path, opened: Open, version: str
) -> None:
    (model, trt), cpu = opened(version), load(tiny_bundle, backend="onnxruntime-cpu", threads=1)
    assert model.max_batch == 4
    found = model.sample(n=5, seed=3)
    np.testing.assert_allclose(found, cpu.sample(n=5, seed=3), atol=1e-4)
    noise = "difftool_noise engine"
    assert f"graph({noise} {noise})" in trt.device.log
    assert [context["shapes"]["x"][0] for context in trt.contexts] == [4, 2]  # 5 = 4 + 1, padded


@pytest.mark.parametrize("version", ["10.7", RTX])
def test_a_batch_runs_in_the_profile_that_fits_it(
    tiny_bundle: Path, opened: Open, version: str
) -> None:
    model, trt = opened(version, batches=SEVERAL)
    cpu = load(tiny_bundle, backend="onnxruntime-cpu", threads=1)
    assert model.max_batch == 6  # one run of 6, not six of 1
    for n in (1, 5, 3):
        found = model.sample(n=n, seed=3)
        np.testing.assert_allclose(found, cpu.sample(n=n, seed=3), atol=1e-4)
    assert [context["shapes"]["x"][0] for context in trt.contexts] == [1, 5, 3]


def test_a_key_that_belies_its_engine_is_an_error(opened: Open) -> None:
    model, trt = opened(batches={"profile": (1, 6, 6), "batches": (1, 4)})
    trt.refused = {"set_optimization_profile_async"}
    with pytest.raises(ArtefactError, match="cannot run a batch of 6"):
        model.sample(n=6)


def test_contexts_share_their_memory(opened: Open) -> None:
    model, trt = opened(batches=SEVERAL)
    for n in (1, 3, 5):  # 1000, 9000 and 5000 bytes
        model.sample(n=n)
    first, second, third = (context["memory"] for context in trt.contexts)
    assert (first[1], second[1]) == (1000, 9000)
    assert third == second


def test_what_a_context_needs_outlives_it(opened: Open) -> None:
    model, trt = opened()
    model.sample(n=2)
    gc.collect()
    assert all(context() for context in trt.alive)
    del model
    gc.collect()
    assert not any(context() for context in trt.alive)
    assert trt.freed_early == []


def test_rtx_compiles_first_and_once(opened: Open) -> None:
    for loaded in ([], [b"kernels"]):  # the first run has none to load
        model, trt = opened()
        model.sample(n=2)
        assert [context["strategy"] for context in trt.contexts] == ["EAGER"]
        assert trt.loaded == loaded


def test_a_refused_cache_of_kernels_is_done_without(opened: Open, cache: EngineCache) -> None:
    model, trt = opened()
    trt.refused = {"set_runtime_cache"}
    model.sample(n=2)
    assert not list(cache.folder.glob("*.runtime"))


def test_an_engine_without_captures(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    model, trt = opened()
    trt.refused = {"is_stream_capturable"}
    with caplog.at_level(logging.WARNING):
        model.sample(n=2)
    assert "the engine cannot be captured: CUDA graphs are off" in caplog.text
    assert not any(entry.startswith("graph") for entry in trt.device.log)
    assert "engine" in trt.device.log


def test_a_refused_capture_is_one_line(opened: Open) -> None:
    """The driver goes on without a graph after such an error."""
    model, trt = opened("11.4")
    batch = model.backend.batch(model.default_program(), 2)
    trt.refused = {"capture"}
    with pytest.raises(ArtefactError) as caught:
        trt.device.capture(lambda: batch.step(None))
    assert caught.value.message == "TensorRT failed to run its engine: it cannot be done"


@pytest.mark.parametrize(
    ("refused", "wrong"),
    [
        ("create_execution_context", "TensorRT cannot run its engine: no reason given"),
        ("set_optimization_profile_async", "TensorRT cannot run a batch of 3: no reason"),
        ("set_tensor_address", "TensorRT takes no memory for x: no reason given"),
        ("execute_async_v3", "failed to run its engine: it cannot be done"),
    ],
)
def test_a_refused_call_is_an_error(opened: Open, refused: str, wrong: str) -> None:
    model, trt = opened(batches=SEVERAL)
    trt.refused = {refused}
    with pytest.raises(ArtefactError, match=f"{wrong}.*build it again"):
        model.sample(n=3)


def test_a_refused_engine_or_shape_is_an_error(opened: Open) -> None:
    with pytest.raises(ArtefactError, match=r"refuses .*: magic tag does not match \(build it"):
        opened(data=b"damaged")
    model, trt = opened(batches=SEVERAL)
    trt.refused = {"set_input_shape"}
    with pytest.raises(UsageError, match=r" is \(.*\), and the engine takes \(2,\) to \(4,\)"):
        model.sample(n=3)


def test_too_large_a_batch_is_told_the_command(opened: Open) -> None:
    model, _ = opened()
    model.max_batch = 12
    with pytest.raises(UsageError, match=r"difftool compile .* --profile 2,12,12"):
        model.sample(n=12)
