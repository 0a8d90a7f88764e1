"""The GPU benchmark without a GPU: all of it on the CPU, and what it makes of what it is told."""

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _gpu_models
import _gpu_parity
import _gpu_part
import _gpu_torch
import gpu
import numpy as np
import onnxruntime
import pytest
import torch
from _gpu_part import Request
from _gpu_results import Cell, Results, figures
from _gpu_sides import COMPILE, OURS, PIPELINE, all_sides, stages
from _gpu_timing import FakeClock, Runner, counted, heat

from difftool.bundle import read_bundle
from difftool.errors import MissingDependencyError
from difftool.networks.trained import load_checkpoint
from difftool.runtime.backends import onnxruntime_cuda
from tests.runtime.cuda.fake import FakeDevice
from tests.runtime.test_backends_gpu import CPU_SESSION, CudaSession

GRAPHS, EAGER = "onnxruntime-cuda, graphs", "torch eager"


@pytest.fixture
def tiny(tiny_checkpoint: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of the dry run, exported before."""
    prepared = load_checkpoint(tiny_checkpoint), read_bundle(tiny_bundle)
    monkeypatch.setattr(_gpu_models, "prepare", lambda case, work: prepared)


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime for GPUs, on a fake one."""

    def session(graph: bytes, settings: Any, *, providers: list[Any]) -> Any:
        if providers == ["CPUExecutionProvider"]:
            return CPU_SESSION(graph, settings, providers=providers)
        return CudaSession(graph, [providers[0][0]])

    monkeypatch.setattr(onnxruntime_cuda, "open_device", FakeDevice)
    monkeypatch.setattr(_gpu_parity, "open_device", FakeDevice)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    providers = ["CUDAExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(precision)


@pytest.mark.usefixtures("tiny", "fake_gpu", "torch_as_it_was")
def test_a_dry_run_fills_every_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--dry-run", "--rounds", "2", "--out", str(tmp_path)]) == 0
    assert "noise kernel against numpy" in capsys.readouterr().out
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["machine"]["torch"]
    assert record["bf16_flops"] > 0
    assert record["network_flops"]["tiny"] > 0
    cells = {(c["batch"], c["side"], c["precision"]): c for c in record["cells"]}
    assert len(cells) == 2 * len(all_sides())
    assert all(bool(cell["ms"]) != bool(cell["absent"]) for cell in cells.values())

    for size in (1, 4):
        for side in (GRAPHS, EAGER, PIPELINE):
            cell = cells[size, side, "fp32"]
            assert len(cell["ms"]) == 2, cell
            assert cell["step_error"] <= 1e-4
            assert cell["images_per_second"] == pytest.approx(size / np.median(cell["ms"]))
        assert cells[size, GRAPHS, "fp32"]["psnr"] > 60
        assert cells[size, GRAPHS, "fp32"]["host_us"]
        assert not cells[size, PIPELINE, "fp32"]["host_us"]
        assert 1e-5 < cells[size, EAGER, "fp16"]["step_error"] <= 5e-3
        assert "needs a GPU" in cells[size, COMPILE, "fp16"]["absent"]
        assert (
            "no TensorrtExecutionProvider" in cells[size, "onnxruntime-tensorrt", "fp32"]["absent"]
        )
        assert "no step.ts" in cells[size, "torchscript", "fp32"]["absent"]
        assert "GPU" in cells[size, "tensorrt, graphs", "fp16"]["absent"]

    verdicts = {figure["name"]: figure["verdict"] for figure in record["figures"]}
    assert verdicts["noise kernel against numpy"] == "pass"
    assert verdicts[f"{GRAPHS}, fp32: step error"] == "pass"
    assert verdicts[f"{GRAPHS}, fp32: whole run"] == "pass"
    page = (tmp_path / "gpu.md").read_text()
    assert "## tiny, batch 4" in page
    rows = [line for line in page.splitlines() if line.startswith(f"| {EAGER} | fp32 |")]
    assert len(rows) == 2
    assert all(row.count("|") == rows[0].count("|") for row in rows)


def replayed(work: Callable[[], Any]) -> tuple[Any, Any]:
    """As a CUDA graph: what the work returns lies in the same memory after every replay."""
    out = work()

    def replay() -> None:
        found = work()
        if out is not None:
            for kept, value in zip(out, found, strict=True):
                kept.copy_(value)

    return SimpleNamespace(replay=replay), out


@pytest.mark.usefixtures("torch_as_it_was")
@pytest.mark.parametrize(("side", "precision"), [("captured", "fp16"), ("compiled", "fp32")])
def test_the_peers_with_graphs_take_the_steps_of_eager_torch(
    tiny_checkpoint: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    side: str,
    precision: str,
) -> None:
    """With the CUDA graph replaced by its work, and torch.compile by the module itself."""
    monkeypatch.setattr(_gpu_torch, "_require_gpu", lambda setting: None)
    monkeypatch.setattr(_gpu_torch, "_graph", replayed)
    monkeypatch.setattr(_gpu_torch, "jit_compiled", lambda *_, **options: lambda module: module)
    checkpoint, bundle = load_checkpoint(tiny_checkpoint), read_bundle(tiny_bundle)
    case = _gpu_models.GPU_CASES["tiny"]
    setting = _gpu_models.Setting(case, checkpoint, bundle, 2, "cpu", tmp_path)
    runner = getattr(_gpu_torch, side)(setting, precision)
    eager = _gpu_torch.eager(setting, precision)
    assert _gpu_parity.Teacher(setting).step_error(runner) <= 5e-3
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    for batch in (runner.batch, eager.batch):
        batch.start(x)
        for _ in range(3):
            batch.step(x)
    assert np.array_equal(runner.batch.x, eager.batch.x)
    for _ in range(2):  # more rows than the program has, were it not for the new beginning
        runner.begin()
        runner.steps(19)


def test_without_a_gpu_it_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> dict[str, Any]:
        raise MissingDependencyError("there is no NVIDIA GPU here", "use another machine")

    monkeypatch.setattr(gpu, "gpu", none)
    assert gpu.main([]) == 4
    assert capsys.readouterr().err == "gpu: there is no NVIDIA GPU here (use another machine)\n"


def test_the_page_of_no_results_is_the_one_that_is_kept(tmp_path: Path) -> None:
    assert gpu.main(["--empty", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "gpu.md").read_text()
    groups = len(gpu.MODELS) * len(gpu.BATCHES)
    assert page.count("\nNo side has a time: not yet measured.") == groups
    kept = gpu.ROOT / "benchmarks/results"
    if not (kept / "gpu.json").is_file():  # nothing was measured yet
        assert (kept / "gpu.md").read_text() == page


def test_every_side_is_opened_once_and_what_decides_comes_first() -> None:
    order = [side for stage in stages() for side in stage]
    assert sorted(order, key=str) == sorted(all_sides(), key=str)
    names = [[(kind.name, precision) for kind, precision in stage] for stage in stages()]
    assert {(GRAPHS, "fp32"), (PIPELINE, "fp16"), ("tensorrt, graphs", "fp16")} <= set(names[0])
    assert names[1] == [(COMPILE, "fp16")]


def runner(log: list[str], name: str, **changes: Any) -> Runner:
    values: dict[str, Any] = {
        "batch": None,
        "begin": lambda: log.append(f"{name} begin"),
        "steps": lambda count: log.append(f"{name} {count}"),
        "wait": lambda: log.append(f"{name} wait"),
        "most": 1000,
    }
    return Runner(**{**values, **changes})


def test_a_heat_times_steps_until_they_are_done_and_the_host_until_they_are_enqueued() -> None:
    log: list[str] = []
    sides = {"a": runner(log, "a", burst=10), "b": runner(log, "b", burst=0, most=6)}
    timed = heat(sides, rounds=2, seconds=0.004, clock=FakeClock())
    # Every look at the clock takes a ms, so 2 steps do, and 8 steps would fill a round.
    assert timed["a"].ms == pytest.approx([1 / 8] * 2)
    assert timed["a"].host_us == pytest.approx([100.0] * 2)
    assert timed["b"].ms == pytest.approx([1 / 6] * 2)
    assert timed["b"].host_us == []
    round_a = ["a begin", "a wait", "a 8", "a wait", "a begin", "a wait", "a 10", "a wait"]
    round_b = ["b begin", "b wait", "b 6", "b wait"]
    assert log[-24:] == [*round_a, *round_b, *round_b, *round_a]


def test_launches_are_the_hosts_and_kernels_the_gpus() -> None:
    host = ["cudaLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch", "aten::add", "cudaMalloc"]
    device = ["gemm", "add", "add", "Memcpy DtoD", "Memset"]
    events = [*((name, False) for name in host), *((name, True) for name in device)]
    assert counted(events, 1, "off") == (3, 3)
    # Four rows are two graphs of this runtime, whether the profiler saw them or not.
    assert counted([], 4, "pairs") == (0.5, 0)
    assert counted(events, 4, "pairs") == (1.0, 0.75)
    assert counted([], 4, "loop") == (0.25, 0)


# In a process of its own: pytest has its own use for this signal.
LATE = """
import signal
from _gpu_timing import deadline

before = signal.getsignal(signal.SIGALRM)
with deadline(600):
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 600
try:
    with deadline(600):
        signal.raise_signal(signal.SIGALRM)  # as the system does when the time is over
except TimeoutError as error:
    print(error)
assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
assert signal.getsignal(signal.SIGALRM) == before
"""


def test_a_deadline_ends_what_takes_too_long() -> None:
    folder = Path(gpu.__file__).parent
    done = subprocess.run([sys.executable, "-c", LATE], cwd=folder, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("not ready within 600 s\n", 0), done.stderr


def speeds(**ms: float) -> Results:
    """Results of the U-Net for CIFAR-10: side -> ms in fp16 at batches 1 and 256."""
    results = Results(flops={"cifar10": 12_000_000_000}, matmul=8e14, ulps=2.0)
    for side, value in ms.items():
        for size in (1, 256):
            cell = Cell(ms=[value, value], host_us=[15.0, 15.0], step_error=1e-3, step_limit=5e-3)
            results.cells["cifar10", size, side, "fp16"] = cell
    return results


def verdicts(results: Results) -> list[str]:
    """Of the four limits on speed: pipeline, compile, host time, part of the bf16 rate."""
    return [figure.verdict for figure in figures(results)[-4:]]


def test_verdicts_are_of_the_best_side_against_the_best_peer() -> None:
    ours = {"tensorrt, graphs": 2.0, GRAPHS: 3.0}
    assert verdicts(speeds(**ours, **{PIPELINE: 10.0, COMPILE: 3.0})) == ["pass"] * 4
    assert verdicts(speeds(**ours, **{PIPELINE: 9.9, COMPILE: 2.9})) == [
        "FAIL", "FAIL", "pass", "pass",
    ]  # fmt: skip
    # 256 samples of 12 GFLOP in 7.7 ms are half of 8e14.
    assert verdicts(speeds(**{GRAPHS: 7.8}))[-1] == "FAIL"
    assert verdicts(speeds(**{GRAPHS: 7.6}))[-1] == "pass"
    assert verdicts(speeds(**{PIPELINE: 1.0})) == [""] * 4
    assert {"tensorrt, graphs", GRAPHS} <= OURS


def test_a_side_of_ours_that_computes_something_else_fails() -> None:
    results = speeds(**{GRAPHS: 2.0})
    found = {figure.name: figure for figure in figures(results)}
    assert found[f"{GRAPHS}, fp16: step error"].verdict == "pass"
    cell = results.cells["cifar10", 256, GRAPHS, "fp16"]
    for error in (6e-3, None):  # None stands for a number that is not finite
        cell.step_error = error
        found = {figure.name: figure for figure in figures(results)}
        assert found[f"{GRAPHS}, fp16: step error"].verdict == "FAIL"


class Scripted:
    """A `Launch` that writes journals and ends as it is told."""

    def __init__(self, *tries: tuple[str, list[dict[str, Any]]]) -> None:
        self.tries = list(tries)
        self.requests: list[Request] = []

    def __call__(self, request: Request, journal: Path, timeout: float) -> str:
        self.requests.append(request)
        ended, events = self.tries.pop(0)
        journal.write_text("".join(json.dumps(event) + "\n" for event in events) + '{"cut off')
        return ended


def test_a_part_whose_process_dies_goes_on_without_the_side_that_it_died_of(
    tmp_path: Path,
) -> None:
    key = {"batch": 16, "side": GRAPHS, "precision": "fp16"}
    other = {"batch": 16, "side": EAGER, "precision": "fp32"}
    launch = Scripted(
        ("died", [{"event": "done", "batch": 64}, {"event": "doing", **key, "what": "timing it"}]),
        ("", [{"event": "cell", **other, "ms": [1.0]}, {"event": "done", "batch": 16}]),
    )
    results = Results()
    part = gpu.Part("cifar10", (64, 16), 1)
    gpu.run_tries(results, part, Request("", str(tmp_path)), launch, 100)
    assert results.cells["cifar10", 16, GRAPHS, "fp16"].absent == "timing it: died"
    assert results.cells["cifar10", 16, EAGER, "fp32"].ms == [1.0]
    assert [request.skipped for request in launch.requests] == [(), ((16, GRAPHS, "fp16"),)]
    assert [request.done for request in launch.requests] == [(), (64,)]


def test_a_process_that_dies_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "_gpu_part.py"
    monkeypatch.setattr(gpu, "__file__", str(tmp_path / "gpu.py"))
    request, journal = Request("speed", str(tmp_path)), tmp_path / "journal.jsonl"
    program.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert gpu.in_child(request, journal, 600) == "the process died of SIGSEGV"
    program.write_text("raise RuntimeError('no cuDNN')")
    assert gpu.in_child(request, journal, 600) == "the process failed: RuntimeError: no cuDNN"
    program.write_text("import signal\nsignal.pause()")
    assert gpu.in_child(request, journal, 0.2) == "not done after 0 s"


def test_a_request_survives_the_way_to_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(
        "speed", str(tmp_path), model="tiny", batches=(1, 4), done=(1,), skipped=((4, "a", "fp32"),)
    )
    seen = []
    monkeypatch.setattr(_gpu_part, "run_part", lambda found, emit: seen.append(found))
    values = json.dumps({**vars(request), "journal": str(tmp_path / "journal")})
    monkeypatch.setattr(sys, "argv", ["_gpu_part.py", values])
    assert _gpu_part.main() == 0
    assert seen == [request]


def test_models_and_batches_can_be_chosen() -> None:
    parts = gpu._chosen(Namespace(only=["cifar10"], batch=[1, 16]))
    assert [(part.model, part.batches) for part in parts] == [("cifar10", (1,)), ("cifar10", (16,))]
    every = [(p.model, b) for p in gpu._chosen(Namespace(only=None, batch=None)) for b in p.batches]
    assert sorted(every) == sorted((m, b) for m in gpu.MODELS for b in gpu.BATCHES)
