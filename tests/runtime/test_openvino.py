"""OpenVINO runs what ONNX Runtime runs, in the precision that was asked for and no other."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from difftool.bundle import CONDITIONER, Bundle, read_bundle
from difftool.compile.quantization.bundle import quantize
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.columns import Column
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import compile_program, ddim
from difftool.errors import ArtefactError, MissingDependencyError
from difftool.runtime import Model
from difftool.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from difftool.runtime.backends.openvino import OpenVino, _Core
from difftool.runtime.draws import Draws
from difftool.runtime.loop import run
from difftool.runtime.opening import open_backend
from difftool.runtime.protocols import Backend

ROUNDING = 1e-5

# In a process of its own, which the signal ended before.
CLOSED = """
import gc, signal, sys, threading
import difftool

heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("heard"))
opened = [difftool.load(sys.argv[1], backend="openvino") for _ in range(2)]

def close():
    while opened:
        del opened[0]
        gc.collect()

if sys.argv[2] == "another thread":
    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
else:
    close()
signal.raise_signal(signal.SIGTERM)
print(*heard)
"""


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def fp32(bundle: Bundle) -> OpenVino:
    return OpenVino(bundle, threads=1)


@pytest.fixture(scope="module")
def bf16(bundle: Bundle) -> OpenVino:
    """The backend in bfloat16, on a CPU that has it."""
    backend = OpenVino(bundle, threads=1, precision="bf16")
    try:
        backend.batch(bundle.default_program(), 3)  # which compiles, and finds out
    except MissingDependencyError as error:
        pytest.skip(str(error))
    return backend


def drawn(
    backend: Backend, bundle: Bundle, program: Program, n: int = 3, labels: Labels | None = None
) -> np.ndarray:
    batch = backend.batch(program, n, labels)
    for _ in run(batch, program, Draws(4, np.arange(n), bundle.spec.shape)):
        pass
    return batch.x.copy()


GUIDED = Labels(np.array([2, 0, 1]), 2.5)


@pytest.mark.parametrize(
    ("model", "sampler", "arguments", "labels"),
    [
        ("tiny_bundle", "ddpm", {}, None),
        ("tiny_bundle", "ddim", {"steps": 6}, None),
        ("tiny_bundle", "unipc", {"steps": 6}, None),
        ("tiny_bundle", "dpmpp_2m", {"steps": 6}, None),
        ("points_bundle", "annealed_langevin", {"steps": 50, "step_size": 1e-4}, None),
        ("classes_bundle", "ddim", {"steps": 6}, GUIDED),
    ],
)
def test_samples_are_those_of_onnxruntime(
    model: str,
    sampler: str,
    arguments: dict[str, object],
    labels: Labels | None,
    request: pytest.FixtureRequest,
) -> None:
    bundle = read_bundle(request.getfixturevalue(model))
    program = compile_program(bundle.spec, SamplerCall(sampler, arguments))
    backend = OpenVino(bundle, threads=1)
    expected = drawn(OnnxRuntimeCpu(bundle, threads=1), bundle, program, 3, labels)
    found = drawn(backend, bundle, program, 3, labels)
    scale = np.abs(expected).max() if model == "points_bundle" else 1.0
    assert np.abs(found - expected).max() < ROUNDING * scale
    if labels is not None:
        unguided = drawn(backend, bundle, program, 3, Labels(labels.of))
        assert np.abs(found - unguided).max() > 0.01


def test_known_values_are_set(featured_bundle: Path) -> None:
    bundle = read_bundle(featured_bundle)
    program = ddim(bundle.spec, steps=4)
    known, mask = np.full((2, 1, 8, 8), 0.25, np.float32), np.zeros((2, 1, 8, 8), np.float32)
    mask[:, :, 4:] = 1
    batch = OpenVino(bundle, threads=1).batch(program, 2)
    draws = Draws(0, np.arange(2), bundle.spec.shape)
    for _ in run(batch, program, draws, known=(known, mask)):
        pass
    assert np.abs(batch.x[:, :, 4:] - 0.25).max() < ROUNDING
    assert np.abs(batch.x[:, :, :4] - 0.25).max() > 0.1


def test_batches_of_any_size(bundle: Bundle, fp32: OpenVino) -> None:
    some, together = (Model(bundle, fp32, max_batch=size).sample(n=5) for size in (2, 5))
    assert np.abs(some - together).max() < ROUNDING


def test_old_batches_go_on_when_others_are_made(bundle: Bundle) -> None:
    """A batch holds its graph and its arrays itself."""
    backend, program = OpenVino(bundle, threads=1), bundle.default_program()
    first = backend.batch(program, 1)
    for size in range(2, 7):
        backend.batch(program, size)
    for _ in run(first, program, Draws(4, np.arange(1), bundle.spec.shape)):
        pass
    assert np.array_equal(first.x, drawn(backend, bundle, program, 1))


def test_bf16_is_near_fp32_and_not_the_same(bundle: Bundle, fp32: OpenVino, bf16: OpenVino) -> None:
    program = ddim(bundle.spec, steps=6, clip=False)
    exact = drawn(fp32, bundle, program)
    error = np.abs(drawn(bf16, bundle, program) - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.1


def test_bf16_finds_every_noise_level(bundle: Bundle, bf16: OpenVino) -> None:
    """A bfloat16 holds whole numbers up to 256 only: 301 is 302 in it."""
    program = ddim(bundle.spec, steps=6)
    table = program.table.copy()
    table[:, [Column.COND, Column.NULL_COND]] += 301
    far = replace(program, table=table, conds=np.append(np.zeros(301), program.conds))
    assert np.array_equal(drawn(bf16, bundle, far), drawn(bf16, bundle, program))


def test_int8_is_that_of_onnxruntime(bundle: Bundle, tmp_path: Path) -> None:
    """Of quantized values all are the same but those that lie on the edge between two."""
    model = quantize(bundle, out=tmp_path / "int8").bundle
    program = ddim(bundle.spec, steps=6)
    exact = drawn(OnnxRuntimeCpu(bundle, threads=1), bundle, program)
    one = drawn(OnnxRuntimeCpu(model, threads=1, precision="int8"), model, program)
    other = drawn(OpenVino(model, threads=1, precision="int8"), model, program)
    rounding = np.abs(one - exact).mean()
    assert 0 < np.abs(other - one).mean() < rounding
    assert 0.5 * rounding < np.abs(other - exact).mean() < 2 * rounding


def test_a_precision_that_the_cpu_lacks(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO takes another in silence."""
    import openvino

    hint = SimpleNamespace(to_string=lambda: "f32")
    monkeypatch.setattr(openvino.CompiledModel, "get_property", lambda *_: hint)
    backend = OpenVino(bundle, precision="bf16")
    with pytest.raises(MissingDependencyError, match="no bf16 on this CPU, only f32"):
        backend.batch(bundle.default_program(), 2)


def test_int8_is_made_first(bundle: Bundle) -> None:
    with pytest.raises(ArtefactError, match=r"has no step\.int8\.onnx") as caught:
        open_backend(bundle, "openvino", threads=1, precision="int8")
    assert "difftool quantize" in caught.value.hint


def test_without_openvino(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError) as caught:
        open_backend(bundle, "openvino", threads=1)
    assert "[openvino]" in caught.value.hint
    assert caught.value.exit_code == 4


def test_onnxruntime_is_not_needed(
    bundle: Bundle, fp32: OpenVino, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CONDITIONER in bundle.manifest.files
    expected = drawn(fp32, bundle, bundle.default_program())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    backend = OpenVino(bundle, threads=1)
    assert np.array_equal(drawn(backend, bundle, bundle.default_program()), expected)


def test_a_graph_that_it_refuses(bundle: Bundle) -> None:
    step = bundle.step("fp32")
    with pytest.raises(ArtefactError, match="OpenVINO refuses") as caught:
        _Core(threads=1).read(replace(step, data=step.data[:-10]))
    assert caught.value.code == "graph-refused"
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("where", ["this thread", "another thread"])
def test_signals_are_heard_after_models_were_closed(tiny_bundle: Path, where: str) -> None:
    command = [sys.executable, "-c", CLOSED, str(tiny_bundle), where]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
