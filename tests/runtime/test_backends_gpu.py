"""ONNX Runtime on a GPU: the backend's own code, with a session on the CPU in place of a GPU's.

The addresses that the session gets lie in the fake device's memory. So it computes on exactly those
buffers that the backend binds.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from difftool.bundle import STEP, Bundle, read_bundle
from difftool.bundle.amend import with_files
from difftool.compile.precision import in_half
from difftool.diffusion.samplers import ddim, ddpm
from difftool.errors import ArtefactError, MissingDependencyError, UsageError
from difftool.runtime import Model, load
from difftool.runtime.backends import onnxruntime_cuda
from difftool.runtime.backends.onnxruntime_cuda import OnnxRuntimeEngine, open_onnxruntime
from difftool.runtime.cuda import cuda_device
from difftool.runtime.cuda.backend import DeviceBackend
from difftool.runtime.opening import open_backend
from tests.fixtures import MakeOnce
from tests.runtime.cuda.fake import FakeDevice

CPU_SESSION = onnxruntime.InferenceSession


def cpu_session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return CPU_SESSION(graph, options, providers=["CPUExecutionProvider"])


class CudaSession:
    """An ONNX Runtime session that takes "cuda" addresses, and notes how it is run."""

    def __init__(self, graph: bytes, providers: list[str]) -> None:
        self._session, self._providers = cpu_session(graph), providers
        self.get_inputs = self._session.get_inputs
        self.disable_fallback = self._session.disable_fallback
        self.graphs: list[str] = []
        self.numbers: set[int] = set()  # of the devices that buffers lie on

    def get_providers(self) -> list[str]:
        return self._providers

    def io_binding(self) -> Any:
        binding = self._session.io_binding()

        def on_cpu(bind: Callable[..., None]) -> Callable[..., None]:
            def bound(name: str, device: str, index: int, *rest: Any) -> None:
                assert device == "cuda"
                self.numbers.add(index)
                bind(name, "cpu", 0, *rest)

            return bound

        return SimpleNamespace(
            real=binding,
            bind_input=on_cpu(binding.bind_input),
            bind_output=on_cpu(binding.bind_output),
        )

    def run_with_iobinding(self, binding: Any, options: onnxruntime.RunOptions) -> None:
        entry = options.get_run_config_entry
        assert entry("disable_synchronize_execution_providers") == "1"
        self.graphs.append(entry("gpu_graph_id"))
        self._session.run_with_iobinding(binding.real)


def test_onnxruntime_runs_on_the_drivers_buffers(tiny_bundle: Path, bundle: Bundle) -> None:
    session = CudaSession(bundle.read(STEP), [])
    device = FakeDevice()
    engine = OnnxRuntimeEngine(session, device, 6, graphs=True)
    model = Model(bundle, DeviceBackend("onnxruntime-cuda", bundle, device, engine))
    cpu = load(tiny_bundle, backend="onnxruntime-cpu", threads=1)
    assert model.max_batch == 6
    for sampler in (ddpm, ddim):
        program = sampler(model.spec, steps=5)
        found = model.sample(program, n=8, seed=3)
        np.testing.assert_allclose(found, cpu.sample(program, n=8, seed=3), atol=1e-4)
    # ONNX Runtime captures a graph for each binding; its number 0 is not for callers.
    assert set(session.graphs) == {"1", "2", "3", "4"}  # batches of 6 and of 2, two sides each
    plain = OnnxRuntimeEngine(session, device, 6, graphs=False)
    session.graphs.clear()
    Model(bundle, DeviceBackend("onnxruntime-cuda", bundle, device, plain)).sample(n=1)
    assert set(session.graphs) == {"-1"}


def test_a_session_captures_few_graphs_and_keeps_those(
    tiny_bundle: Path, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    """The first eight sizes get graphs, and keep their buffers for ever; others get none."""
    session, device = CudaSession(bundle.read(STEP), []), FakeDevice()
    engine = OnnxRuntimeEngine(session, device, 16, graphs=True)
    backend = DeviceBackend("onnxruntime-cuda", bundle, device, engine)
    model, cpu = Model(bundle, backend), load(tiny_bundle, backend="onnxruntime-cpu", threads=1)
    program = ddim(model.spec, steps=2)
    used = []
    for n in (*range(1, 9), 10, 12, 10, 3):
        session.graphs.clear()
        found = model.sample(program, n=n)
        np.testing.assert_allclose(found, cpu.sample(program, n=n), atol=1e-4)
        used.append(set(session.graphs))
        assert backend.graphs == ("off" if n > 8 else "rows")
    ids = [{str(2 * n - 1), str(2 * n)} for n in range(1, 9)]
    assert used == [*ids, *[{"-1"}] * 3, ids[2]]
    assert caplog.text.count("run without CUDA graphs") == 1


@pytest.fixture(scope="session")
def half_bundle(tiny_bundle: Path, made_once: MakeOnce) -> Path:
    """Add 16-bit graphs to the tiny bundle; bf16 is float32 in fact, as CPUs have no kernels."""

    def make(folder: Path) -> None:
        copy = read_bundle(shutil.copytree(tiny_bundle, folder))
        step = copy.read(STEP)
        half = in_half(onnx.load_from_string(step), "fp16").SerializeToString()
        with_files(copy, {"step.fp16.onnx": half, "step.bf16.onnx": step})

    return made_once("half-bundle", make)


@pytest.fixture
def cuda_runtime(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Fake onnxruntime-gpu on a machine with GPUs; `asked` has the options of each session."""
    fake = SimpleNamespace(asked=[], sessions=[], loaded=None, graphs_refused=False)

    def session(graph: bytes, settings: Any, *, providers: list[Any]) -> Any:
        if providers == ["CPUExecutionProvider"]:  # the conditioner's
            return CPU_SESSION(graph, settings, providers=providers)
        print("*** EP Error ***")
        fake.asked.append(dict(providers[0][1]))
        if fake.graphs_refused and providers[0][1]["enable_cuda_graph"] == "1":
            raise RuntimeError("not all nodes have been partitioned to the CUDA EP")
        loaded = [providers[0][0]] if fake.loaded is None else fake.loaded
        fake.sessions.append(CudaSession(graph, [*loaded, "CPUExecutionProvider"]))
        return fake.sessions[-1]

    monkeypatch.setattr(cuda_device, "has_driver", lambda: True)
    monkeypatch.setattr(onnxruntime_cuda, "open_device", lambda number: FakeDevice(number=number))
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", lambda level: None)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn"))
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [*onnxruntime_cuda.PROVIDERS.values()]
    )
    return fake


def test_a_cuda_session_is_exact_and_shares_the_stream(
    bundle: Bundle, cuda_runtime: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = open_onnxruntime(bundle, "onnxruntime-cuda")
    assert backend.best_batch == (1 << 18) // 64
    assert cuda_runtime.asked == [
        {
            "device_id": "0",
            "user_compute_stream": str(FakeDevice().stream),
            "use_tf32": "0",
            "prefer_nhwc": "0",
            "enable_cuda_graph": "1",
        }
    ]
    assert capsys.readouterr().out == ""  # stdout is for the command's own output
    open_onnxruntime(bundle, "onnxruntime-cuda", "tf32", graphs=False)
    assert cuda_runtime.asked[1]["use_tf32"] == "1"
    assert cuda_runtime.asked[1]["enable_cuda_graph"] == "0"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", [None, "onnxruntime-cuda"])
def test_16_bits_run_on_tensor_cores(
    half_bundle: Path, cuda_runtime: SimpleNamespace, name: str | None, precision: str
) -> None:
    model = load(half_bundle, backend=name, precision=precision)
    assert model.backend.name == "onnxruntime-cuda"
    assert [asked["use_tf32"] for asked in cuda_runtime.asked] == ["1"]
    cpu = load(half_bundle, backend="onnxruntime-cpu", threads=1)
    found, exact = (each.sample(n=2, seed=3) for each in (model, cpu))
    error = np.abs(found - exact).max()
    assert (1e-5 if precision == "fp16" else 0) < error < 1e-1  # the graph of fp16 has run


@pytest.mark.usefixtures("cuda_runtime")
@pytest.mark.parametrize("name", [None, "onnxruntime-cuda"])
def test_16_bits_need_their_graph(bundle: Bundle, name: str | None) -> None:
    with pytest.raises(ArtefactError, match=r"no step\.fp16\.onnx .*compile .* --onnx"):
        open_backend(bundle, name, threads=None, precision="fp16")


def test_a_gpu_by_its_number(bundle: Bundle, cuda_runtime: SimpleNamespace) -> None:
    for name in (None, "onnxruntime-cuda", "onnxruntime-tensorrt"):
        model = load(bundle, backend=name, device=2)
        model.sample(n=1)
        assert cuda_runtime.asked[-1]["device_id"] == "2"
        assert cuda_runtime.sessions[-1].numbers == {2}


def test_tf32_is_asked_for_by_its_precision(bundle: Bundle, cuda_runtime: SimpleNamespace) -> None:
    for name in (None, "auto", "onnxruntime-cuda"):
        opened = open_backend(bundle, name, threads=None, precision="tf32")
        assert opened.name == "onnxruntime-cuda"
    assert [asked["use_tf32"] for asked in cuda_runtime.asked] == ["1", "1", "1"]
    with pytest.raises(UsageError, match="onnxruntime-cpu has no tf32"):
        open_backend(bundle, "onnxruntime-cpu", threads=None, precision="tf32")


def test_a_session_without_graphs(bundle: Bundle, cuda_runtime: SimpleNamespace) -> None:
    cuda_runtime.graphs_refused = True
    open_onnxruntime(bundle, "onnxruntime-cuda")
    assert [asked["enable_cuda_graph"] for asked in cuda_runtime.asked] == ["1", "0"]


@pytest.mark.parametrize("name", onnxruntime_cuda.PROVIDERS)
def test_no_silent_cpu(bundle: Bundle, cuda_runtime: SimpleNamespace, name: str) -> None:
    assert open_onnxruntime(bundle, name).name == name
    cuda_runtime.loaded = []
    with pytest.raises(MissingDependencyError, match="cannot load") as error:
        open_onnxruntime(bundle, name)
    assert ("[cuda,cudnn]" in error.value.hint) == (name == "onnxruntime-cuda")
