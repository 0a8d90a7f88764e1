"""The GPU benchmark without a GPU: every stage on the CPU, and what becomes of its processes."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from common import models
from common.candidates import COMPILE, EAGER, PIPELINE
from common.models import Case, Setting
from gpu import main, parity
from gpu.candidates import AOT
from gpu.part import Request, parse_request
from gpu.processes import in_child
from gpu.run import StageRun
from gpu.stages import STAGES, Part

from difftool.runtime.backends import onnxruntime_cuda
from tests.runtime.cuda.fake import FakeDevice
from tests.runtime.test_backends_gpu import CPU_SESSION, CudaSession

GRAPHS = "onnxruntime-cuda, graphs"


def on_a_fake_gpu(patch: pytest.MonkeyPatch) -> None:
    """Have ONNX Runtime for GPUs, on a fake one."""

    def session(graph: bytes, settings: Any, *, providers: list[Any]) -> Any:
        if providers == ["CPUExecutionProvider"]:
            return CPU_SESSION(graph, settings, providers=providers)
        return CudaSession(graph, [providers[0][0]])

    patch.setattr(onnxruntime_cuda, "open_device", lambda *_: FakeDevice())
    patch.setattr(parity, "open_device", lambda *_: FakeDevice())
    patch.setattr(onnxruntime, "InferenceSession", session)
    patch.setattr(onnxruntime, "preload_dlls", lambda: None)
    providers = ["CUDAExecutionProvider"]
    patch.setattr(onnxruntime, "get_available_providers", lambda: providers)


@pytest.fixture(scope="module")
def dry(prepared: Setting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a dry run of every stage, on the tiny model, which was exported before."""

    def prepare(case: Case, work: Path, *, torchscript: bool) -> Setting:
        return replace(prepared, case=case, folder=work)

    folder, precision = tmp_path_factory.mktemp("dry"), torch.get_float32_matmul_precision()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "prepare", prepare)
        on_a_fake_gpu(patch)
        assert main.main("", ["run", "--dry-run", "--rounds", "2", "--out", str(folder)]) == 0
    torch.set_float32_matmul_precision(precision)
    return folder


Cells = dict[tuple[str, str], dict[str, Any]]


def read_cells(path: Path) -> Cells:
    """Return what a stage found last of each candidate."""
    cells: Cells = {}
    for event in json.loads(path.read_text())["events"]:
        if event["event"] == "cell":
            key = event["candidate"], event["precision"]
            cells[key] = {**cells.get(key, {}), **event}
    return cells


@pytest.mark.parametrize("stage", STAGES)
def test_a_dry_run_goes_through_every_stage(stage: str, dry: Path) -> None:
    cells = read_cells(dry / f"gpu-{stage}.json")
    named = {(kind.name, precision) for kind, precision in STAGES[stage].candidates}
    assert cells.keys() == named
    for cell in cells.values():
        compared = cell.get("step_error") is not None
        done = bool(cell.get("ms")) if STAGES[stage].timed else compared
        assert done != bool(cell.get("absent")), cell


def test_the_stages_of_a_dry_run_say_what_they_found(dry: Path) -> None:
    tests = json.loads((dry / "gpu-tests.json").read_text())["events"]
    assert [test["outcome"] for test in tests] == ["passed"]
    (loaded,) = json.loads((dry / "gpu-engine.json").read_text())["events"]
    assert (loaded["loads"], loaded["built"]) == (None, "sm80")
    assert "no NVIDIA GPU" in loaded["why"]

    peers = read_cells(dry / "gpu-peers.json")
    for precision in ("fp32", "tf32", "fp16", "bf16"):
        assert len(peers[EAGER, precision]["ms"]) == 2
        assert "needs a GPU" in peers[COMPILE, precision]["absent"]
        assert "needs a GPU" in peers[AOT, precision]["absent"]
    assert 1e-5 < peers[EAGER, "fp16"]["step_error"] <= 5e-3
    assert not peers[PIPELINE, "fp32"]["host_us"]

    swept = read_cells(dry / "gpu-sweep.json")
    for (name, _), cell in swept.items():
        assert bool(cell.get("ms")) == ("plain" in name and cell["precision"] != "bf16"), cell
    plain = "onnxruntime-cuda, plain, tf32=1, nhwc=1, bias=1, search=HEURISTIC"
    assert swept[plain, "fp16"]["ms"]

    parity = read_cells(dry / "gpu-parity.json")
    assert parity[GRAPHS, "fp32"]["psnr"] > 60
    assert "ms" not in parity[GRAPHS, "fp32"]

    ours = read_cells(dry / "gpu-batches.json")
    assert len(ours[GRAPHS, "fp32"]["ms"]) == len(ours[GRAPHS, "fp32"]["host_us"]) == 2
    assert ours[GRAPHS, "fp32"]["step_error"] <= 1e-4
    assert "no TensorrtExecutionProvider" in ours["onnxruntime-tensorrt", "fp32"]["absent"]
    assert "no step.ts" in ours["torchscript", "fp32"]["absent"]
    assert "GPU" in ours["tensorrt, graphs", "fp16"]["absent"]


def test_stages_merge_into_one_page_and_leave_earlier_runs_there(
    dry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = json.loads((main.RESULTS / "gpu.json").read_text())["runs"]
    (tmp_path / "gpu.json").write_text(json.dumps({"benchmark": "gpu", "runs": earlier}))
    for name in ("a dry run", "a dry run"):  # a run of the same name is replaced
        arguments = ["--work", str(dry), "--out", str(tmp_path), "--name", name]
        assert main.main("", ["merge", *arguments]) == 0
    assert "noise kernel against numpy" in capsys.readouterr().out
    first, *others = json.loads((tmp_path / "gpu.json").read_text())["runs"]
    assert others == earlier
    assert first["name"] == "a dry run"
    assert first["machine"]["torch"]
    assert first["bf16_flops"] > 0
    assert first["network_flops"]["tiny"] > 0
    verdicts = {figure["name"]: figure["verdict"] for figure in first["figures"]}
    assert verdicts["tests/gpu on the card: failures"] == "pass"
    assert verdicts["noise kernel against numpy"] == "pass"
    assert verdicts[f"{GRAPHS}, fp32: step error"] == "pass"
    page = (tmp_path / "gpu.md").read_text()
    assert "## a dry run" in page
    assert "### tiny, batch 2" in page
    assert f"## {earlier[0]['name']}" in page
    assert f"| {GRAPHS} | tf32 | 2.04 |" in page  # of the earlier run
    rows = [line for line in page.splitlines() if line.startswith(f"| {EAGER} | fp32 |")]
    assert all(row.count("|") == rows[0].count("|") for row in rows)


def test_a_stage_that_was_not_run_and_one_that_cannot_be_say_so(dry: Path, tmp_path: Path) -> None:
    (tmp_path / "gpu-peers.json").write_text((dry / "gpu-peers.json").read_text())
    arguments = ["merge", "--work", str(tmp_path), "--out", str(tmp_path)]
    assert main.main("", arguments) == 0
    assert "sweep not run" in (tmp_path / "gpu.md").read_text()
    stage = replace(STAGES["sweep"], needs=("no-such-package",))
    events = StageRun(stage, Request("", str(tmp_path)), Scripted(), 0).events()
    assert len(events) == len(stage.groups) * len(stage.candidates)
    assert {event["absent"] for event in events} == {"no-such-package is not installed"}
    stage = replace(STAGES["tests"], needs=("no-such-package",))
    (event,) = StageRun(stage, Request("", str(tmp_path)), Scripted(), 0).events()
    assert event == {"event": "test", "why": "no-such-package is not installed"}


def test_stages_of_two_gpus_do_not_merge(
    dry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, gpu in (("peers", "one"), ("sweep", "another")):
        found = json.loads((dry / f"gpu-{name}.json").read_text())
        found["machine"]["gpu"] = gpu
        (tmp_path / f"gpu-{name}.json").write_text(json.dumps(found))
    assert main.main("", ["merge", "--work", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "several GPUs" in capsys.readouterr().err


def test_without_a_gpu_it_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main("", ["run", "peers"]) == 4
    assert capsys.readouterr().err.startswith("gpu: there is no NVIDIA GPU here")


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


def test_a_part_goes_on_without_the_candidate_that_ended_its_process(
    tmp_path: Path,
) -> None:
    key = {"batch": 16, "candidate": GRAPHS, "precision": "fp16"}
    other = {"batch": 16, "candidate": EAGER, "precision": "fp32"}
    launch = Scripted(
        ("died", [{"event": "done", "batch": 64}, {"event": "doing", **key, "what": "timing it"}]),
        ("", [{"event": "cell", **other, "ms": [1.0]}, {"event": "done", "batch": 16}]),
    )
    run = StageRun(STAGES["batches"], Request("", str(tmp_path)), launch, math.inf)
    found = run.tries(Part("cifar10", (64, 16)), 100)
    cells = {event["candidate"]: event for event in found if event["event"] == "cell"}
    assert cells[GRAPHS]["absent"] == "timing it: died"
    assert cells[EAGER]["ms"] == [1.0]
    assert [request.skipped for request in launch.requests] == [[], [[16, GRAPHS, "fp16"]]]
    assert [request.done for request in launch.requests] == [[], [64]]


def test_a_process_that_dies_is_reported(tmp_path: Path) -> None:
    program = tmp_path / "part.py"
    request, journal = Request("stage", str(tmp_path)), tmp_path / "journal.jsonl"

    def ended(source: str, timeout: float = 600) -> str:
        program.write_text(source)
        return in_child(request, journal, timeout, [str(program)])

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
        "stage", str(tmp_path), model="tiny", batches=[1, 4], done=[1], skipped=[[4, "a", "fp32"]]
    )
    assert in_child(request, journal, 600, [str(program)]) == ""
    assert parse_request(got.read_text()) == (request, journal)


def test_a_part_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The script's own program is found, and says what it has no GPU for."""
    request, journal = Request("machine", str(tmp_path), "cpu"), tmp_path / "journal.jsonl"
    assert in_child(request, journal, 600) == ""
    events = [json.loads(line)["event"] for line in journal.read_text().splitlines()]
    assert events == ["machine"]


def test_every_stage_fits_what_the_issue_asks_of_it() -> None:
    assert list(STAGES) == ["tests", "peers", "sweep", "parity", "batches", "engine"]
    sizes = {size for model, size in STAGES["peers"].groups if model == "cifar10"}
    assert sizes == {1, 16, 64, 256}
    for stage in STAGES.values():
        names = [(kind.name, precision) for kind, precision in stage.candidates]
        assert len(names) == len(set(names))
