"""Engines of real TensorRT, built without a GPU: of every precision, and each one only once."""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import onnx
import pytest

from difftool.bundle import STEP, Bundle, read_bundle
from difftool.bundle.amend import with_files
from difftool.compile.engine.build import build_engine
from difftool.compile.engine.compile import EngineRequest, compile_bundle, engine_key, step_graph
from difftool.compile.engine.target import Target, resolve_target
from difftool.errors import ArtefactError, MissingDependencyError, UsageError
from difftool.export import export
from difftool.runtime.engine_cache import EngineCache

pytest.importorskip("tensorrt_rtx")

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
MAGIC = b"vtrt"  # what an engine of TensorRT for RTX begins with


@pytest.fixture(scope="module")
def target() -> Target:
    return resolve_target(("sm89", "sm120"))


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_gpu_is_needed(tiny: Bundle, target: Target, precision: str, cache: EngineCache) -> None:
    progress = Mock()
    request = EngineRequest(target, precision, (1, 2, 4))
    compiled = compile_bundle(tiny, request, cache=cache, on_progress=progress)
    data = compiled.path.read_bytes()
    phases = [call.args for call in progress.call_args_list]
    assert compiled.built
    assert data.startswith(MAGIC)
    assert compiled.record.size == len(data) > 100_000
    assert compiled.record.key == engine_key(tiny, request)
    assert len(phases) > 100
    assert all(0 <= done <= total for _, done, total in phases)
    assert len({phase for phase, _, _ in phases}) > 3


def test_one_engine_for_several_batches(tiny: Bundle, target: Target, cache: EngineCache) -> None:
    """TensorRT for RTX takes several profiles, and each adds kernels."""
    several = compile_bundle(tiny, EngineRequest(target), cache=cache).record
    assert (several.key.profile, several.key.batches) == ((1, 64, 64), (1, 16, 64))
    one = compile_bundle(tiny, EngineRequest(target, profile=(1, 64, 64)), cache=cache).record
    assert (one.key.profile, one.key.batches) == ((1, 64, 64), ())
    assert several.size > one.size


def test_tf32_is_the_graph_of_float32(tiny: Bundle, target: Target, cache: EngineCache) -> None:
    def made(precision: str) -> tuple[str, bytes]:
        compiled = compile_bundle(tiny, EngineRequest(target, precision, (1, 1, 1)), cache=cache)
        return compiled.record.key.onnx_sha256, compiled.path.read_bytes()

    (graph, exact), (same, rounded) = made("fp32"), made("tf32")
    assert graph == same
    assert step_graph(tiny, "tf32") == step_graph(tiny, "fp32")
    # An engine holds the settings of the compiler of its kernels, as text.
    assert (b"tf32=0\n" in exact, b"tf32=1\n" in exact) == (True, False)
    assert (b"tf32=0\n" in rounded, b"tf32=1\n" in rounded) == (False, True)


def test_an_engine_is_built_once(tiny: Bundle, target: Target, cache: EngineCache) -> None:
    request = EngineRequest(target, "fp32", (1, 1, 1))
    first = compile_bundle(tiny, request, cache=cache)
    again = compile_bundle(tiny, request, cache=cache)
    assert (first.built, again.built) == (True, False)
    assert first.record == again.record
    first.path.write_bytes(b"damaged")
    repaired = compile_bundle(tiny, request, cache=cache)
    assert repaired.built
    assert repaired.path.read_bytes().startswith(MAGIC)


def test_a_graph_that_tensorrt_cannot_take_is_refused(tiny: Bundle, target: Target) -> None:
    model = step_graph(tiny, "fp32")
    node = next(node for node in model.graph.node if node.op_type == "Sigmoid")
    node.op_type, node.name = "BitwiseNot", "culprit"
    key = engine_key(tiny, EngineRequest(target))
    with pytest.raises(
        ArtefactError, match=r"node culprit \(BitwiseNot\): TensorRT has no bitwise"
    ):
        build_engine(model, key, target.variant)


def test_what_only_the_parser_finds_is_refused_in_one_line(tiny: Bundle, target: Target) -> None:
    model = step_graph(tiny, "fp32")
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    node.name, node.input[1] = "culprit", "nowhere"
    key = engine_key(tiny, EngineRequest(target))
    with pytest.raises(
        ArtefactError, match=r"TensorRT for RTX does not support .* \(Conv\)"
    ) as caught:
        build_engine(model, key, target.variant)
    assert "\n" not in caught.value.message


def test_an_interrupt_ends_the_build(tiny: Bundle, target: Target, cache: EngineCache) -> None:
    interrupt = Mock(side_effect=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        compile_bundle(tiny, EngineRequest(target), cache=cache, on_progress=interrupt)
    assert cache.records() == []


def test_tensorrt_swallows_no_ctrl_c(tiny: Bundle, target: Target, cache: EngineCache) -> None:
    """It is raised in the main thread, so none of TensorRT's callbacks may run there."""
    threads: set[threading.Thread] = set()

    def watch(phase: str, done: int, total: int) -> None:
        if not threads:
            os.kill(os.getpid(), signal.SIGINT)
        threads.add(threading.current_thread())

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            compile_bundle(tiny, EngineRequest(target), cache=cache, on_progress=watch)
    finally:
        signal.signal(signal.SIGINT, before)
    assert threads
    assert threading.main_thread() not in threads
    assert cache.records() == []


def test_a_model_without_conditioning(target: Target, cache: EngineCache, tiny: Bundle) -> None:
    """Its cond_table has no columns, and no part in the engine."""
    model = step_graph(tiny, "fp32")
    unused = onnx.helper.make_tensor_value_info("nothing", onnx.TensorProto.FLOAT, ["conds", 0])
    model.graph.input.append(unused)
    engine, _ = build_engine(model, engine_key(tiny, EngineRequest(target)), target.variant)
    assert b"nothing" not in engine
    assert b"cond_table" in engine


@pytest.fixture(scope="module")
def exported(
    points_checkpoint: Path, target: Target, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A bundle that was exported with an fp16 engine."""
    out = tmp_path_factory.mktemp("exported") / "points"
    request = EngineRequest(target, "fp16", (1, 2, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFTOOL_CACHE", str(out.parent / "cache"))
        yield export(points_checkpoint, out, engine=request).path


def test_an_exported_bundle_has_graph_engine_and_key(exported: Path) -> None:
    bundle = read_bundle(exported)
    files = {STEP, "conditioner.onnx", "step.fp16.onnx", "step.fp16.sm89-sm120.engine"}
    assert set(bundle.manifest.files) == files
    (key,) = bundle.manifest.engines.values()
    assert (key.precision, key.gpus, key.profile) == ("fp16", ("sm89", "sm120"), (1, 2, 4))
    assert key.onnx_sha256 == bundle.manifest.files["step.fp16.onnx"].sha256
    (record,) = EngineCache(exported.parent / "cache").records()
    assert record.sha256 == bundle.manifest.files["step.fp16.sm89-sm120.engine"].sha256
    assert record.model == "points"


def test_a_precision_of_the_bundles_own_is_what_is_compiled(exported: Path) -> None:
    bundle = read_bundle(exported)
    assert step_graph(bundle, "fp16") == onnx.load(exported / "step.fp16.onnx")
    assert step_graph(bundle, "fp32") == onnx.load(exported / STEP)


def test_a_failed_build_leaves_no_bundle(
    points_checkpoint: Path, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFTOOL_CACHE", str(tmp_path / "cache"))
    fail = Mock(side_effect=ArtefactError("it fails"))
    with pytest.raises(ArtefactError, match="it fails"):
        export(points_checkpoint, tmp_path / "out", engine=EngineRequest(target), on_build=fail)
    assert list(tmp_path.iterdir()) == []


def test_a_precision_that_is_not_to_be_had_is_refused(target: Target) -> None:
    with pytest.raises(UsageError, match="unknown precision 'fp64'"):
        EngineRequest(target, "fp64")
    with pytest.raises(UsageError, match="sm80, sm86 has no 8-bit floats"):
        EngineRequest(resolve_target(("sm86", "sm89", "sm80")), "fp8")


def test_int8_needs_onnxruntime(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="onnxruntime is not installed"):
        step_graph(tiny, "int8")


def test_a_changed_bundle_has_another_key(tiny: Bundle, target: Target, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny.path, tmp_path / "copy")
    assert engine_key(read_bundle(copy), EngineRequest(target)) == engine_key(
        tiny, EngineRequest(target)
    )
    assert engine_key(tiny, EngineRequest(target)) != engine_key(
        tiny, EngineRequest(target, "fp16")
    )


def test_the_int8_of_a_cpu_is_not_what_is_compiled(tiny: Bundle, tmp_path: Path) -> None:
    copy = read_bundle(shutil.copytree(tiny.path, tmp_path / "copy"))
    graph = step_graph(with_files(copy, {"step.int8.onnx": b"asymmetric"}), "int8")
    assert any(node.op_type == "QuantizeLinear" for node in graph.graph.node)
