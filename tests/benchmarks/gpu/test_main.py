"""The GPU benchmark without a GPU: all of it on the CPU, and what becomes of its processes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from common import models
from common.candidates import COMPILE, EAGER, PIPELINE
from common.models import Case, Setting
from gpu import main, parity
from gpu.candidates import all_candidates
from gpu.part import Request, request_of
from gpu.results import Results

from difftool.errors import MissingDependencyError
from difftool.runtime.backends import onnxruntime_cuda
from tests.runtime.cuda.fake import FakeDevice
from tests.runtime.test_backends_gpu import CPU_SESSION, CudaSession

GRAPHS = "onnxruntime-cuda, graphs"


@pytest.fixture
def tiny(prepared: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of the dry run, exported before."""

    def prepare(case: Case, work: Path, *, torchscript: bool) -> Setting:
        return replace(prepared, case=case, folder=work)

    monkeypatch.setattr(models, "prepare", prepare)


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime for GPUs, on a fake one."""

    def session(graph: bytes, settings: Any, *, providers: list[Any]) -> Any:
        if providers == ["CPUExecutionProvider"]:
            return CPU_SESSION(graph, settings, providers=providers)
        return CudaSession(graph, [providers[0][0]])

    monkeypatch.setattr(onnxruntime_cuda, "open_device", lambda number: FakeDevice())
    monkeypatch.setattr(parity, "open_device", FakeDevice)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    providers = ["CUDAExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)


@pytest.mark.usefixtures("tiny", "fake_gpu", "torch_as_it_was")
def test_a_dry_run_fills_every_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main("", ["--dry-run", "--rounds", "2", "--out", str(tmp_path)]) == 0
    assert "noise kernel against numpy" in capsys.readouterr().out
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["machine"]["torch"]
    assert record["bf16_flops"] > 0
    assert record["network_flops"]["tiny"] > 0
    cells = {(c["batch"], c["candidate"], c["precision"]): c for c in record["cells"]}
    assert len(cells) == 2 * len(all_candidates())
    assert all(bool(cell["ms"]) != bool(cell["absent"]) for cell in cells.values())

    for size in (1, 4):
        for name in (GRAPHS, EAGER, PIPELINE):
            cell = cells[size, name, "fp32"]
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


def test_without_a_gpu_it_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> dict[str, Any]:
        raise MissingDependencyError("there is no NVIDIA GPU here", "use another machine")

    monkeypatch.setattr(main, "gpu", none)
    assert main.main("", []) == 4
    assert capsys.readouterr().err == "gpu: there is no NVIDIA GPU here (use another machine)\n"


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


def test_a_part_goes_on_without_the_candidate_that_its_process_died_of(
    tmp_path: Path,
) -> None:
    key = {"batch": 16, "candidate": GRAPHS, "precision": "fp16"}
    other = {"batch": 16, "candidate": EAGER, "precision": "fp32"}
    launch = Scripted(
        ("died", [{"event": "done", "batch": 64}, {"event": "doing", **key, "what": "timing it"}]),
        ("", [{"event": "cell", **other, "ms": [1.0]}, {"event": "done", "batch": 16}]),
    )
    results = Results()
    part = main.Part("cifar10", (64, 16), 1)
    main.run_tries(results, part, Request("", str(tmp_path)), launch, 100)
    assert results.cells["cifar10", 16, GRAPHS, "fp16"].absent == "timing it: died"
    assert results.cells["cifar10", 16, EAGER, "fp32"].ms == [1.0]
    assert [request.skipped for request in launch.requests] == [[], [[16, GRAPHS, "fp16"]]]
    assert [request.done for request in launch.requests] == [[], [64]]


def test_a_process_that_dies_is_reported(tmp_path: Path) -> None:
    program = tmp_path / "part.py"
    request, journal = Request("speed", str(tmp_path)), tmp_path / "journal.jsonl"

    def ended(source: str, timeout: float = 600) -> str:
        program.write_text(source)
        return main.in_child(request, journal, timeout, [str(program)])

    assert ended("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)") == (
        "the process died of SIGSEGV"
    )
    assert ended("raise RuntimeError('no cuDNN')") == ("the process failed: RuntimeError: no cuDNN")
    assert ended("import signal\nsignal.pause()", 0.2) == "not done after 0 s"


def test_a_request_survives_the_way_to_its_process(tmp_path: Path) -> None:
    journal, got = tmp_path / "journal", tmp_path / "got"
    program = tmp_path / "part.py"
    program.write_text(f"import sys\nopen({str(got)!r}, 'w').write(sys.argv[1])")
    request = Request(
        "speed", str(tmp_path), model="tiny", batches=[1, 4], done=[1], skipped=[[4, "a", "fp32"]]
    )
    assert main.in_child(request, journal, 600, [str(program)]) == ""
    assert request_of(got.read_text()) == (request, journal)


def test_a_part_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The script's own program is found, and says what it has no GPU for."""
    request, journal = Request("machine", str(tmp_path), "cpu"), tmp_path / "journal.jsonl"
    assert main.in_child(request, journal, 600) == ""
    events = [json.loads(line)["event"] for line in journal.read_text().splitlines()]
    assert events == ["machine"]


def test_models_and_batches_can_be_chosen() -> None:
    parts = main.chosen(["cifar10"], [1, 16])
    assert [(part.model, part.batches) for part in parts] == [("cifar10", (1,)), ("cifar10", (16,))]
    every = [(part.model, size) for part in main.chosen(None, None) for size in part.batches]
    assert sorted(every) == sorted((model, size) for model in main.MODELS for size in main.BATCHES)
