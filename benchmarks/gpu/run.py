"""Run a stage: its models, its parts in processes of their own, and its journal as JSON."""

import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.inside import open_device
from common.machine import ROOT, machine, version

from difftool.errors import first_line
from gpu.part import Request
from gpu.processes import Launch, run_with_journal
from gpu.results import KEY
from gpu.stages import Part, Stage

GRACE = 20.0  # seconds that a part may go on for after its time
TRIES = 3  # of a part, each without the candidate that ended the last one
LEAST = 15.0  # seconds: with less left no process is started

_PACKAGES = (
    "cuda-bindings", "cuda-core", "nvidia-cudnn-cu13", "onnxruntime-gpu", "tensorrt",
    "tensorrt-rtx", "triton",
)  # fmt: skip

Event = dict[str, Any]


@dataclass
class StageRun:
    """A stage on its way: `base` is what its requests share, `end` when it must be done."""

    stage: Stage
    base: Request
    launch: Launch
    end: float
    dry: bool = False

    def events(self) -> list[Event]:
        """Do the stage, and give all that was found; what was not is a cell that says why."""
        lacking = [name for name in self.stage.needs if version(name) is None]
        if lacking and not self.dry:
            return self._absent(f"{lacking[0]} is not installed")
        if self.stage.name == "tests":
            return test_events(self.left(), self.base.work, dry=self.dry)
        if self.stage.name == "engine":
            ended, found = self._do(replace(self.base, job="engine"), self.left())
            return found or [{"event": "engine", "why": ended}]
        ended, found = self._do(replace(self.base, job="machine"), min(60.0, self.left()))
        broken, made = self._models()
        found += made
        for index, part in enumerate(self.stage.parts):
            if part.model not in broken:
                weights = [later.weight for later in self.stage.parts[index:]]
                found += self.tries(part, self.left() * part.weight / sum(weights))
        return found + self._missing(found, broken)

    def left(self) -> float:
        """Return how many seconds there are."""
        return self.end - time.monotonic()

    def tries(self, part: Part, seconds: float) -> list[Event]:
        """Run a part; if its process dies, again without the candidate that it died of."""
        end = time.monotonic() + seconds
        found: list[Event] = []
        skipped: list[list[Any]] = []
        done: list[int] = []
        for _ in range(TRIES):
            left = end - time.monotonic()
            if left < LEAST:
                break
            request = replace(self.base, job="stage", model=part.model, batches=part.batches)
            request = replace(request, seconds=left, skipped=[*skipped], done=[*done])
            ended, events = self._do(request, left + GRACE)
            found += events
            done += [event["batch"] for event in events if event["event"] == "done"]
            if not ended:
                break
            doing = [event for event in events if event["event"] == "doing"]
            last = doing[-1] if doing else {"candidate": "", "what": "beginning"}
            why = f"{last['what']}: {ended}"
            if not last["candidate"] or not last["precision"]:
                groups = [(part.model, size) for size in part.batches if size not in done]
                return found + self._missing(found, dict.fromkeys([part.model], why), groups)
            cell = {name: last[name] for name in KEY}
            skipped.append([cell[name] for name in KEY[1:]])
            if tuple(cell.values()) not in _known(found):
                found.append({"event": "cell", **cell, "absent": why})
        return found

    def _do(self, request: Request, timeout: float) -> tuple[str, list[Event]]:
        return run_with_journal(request, self.launch, timeout)

    def _models(self) -> tuple[dict[str, str], list[Event]]:
        """Export all models at the same time; list those that cannot be, and why."""
        models = list(dict.fromkeys(part.model for part in self.stage.parts))
        left = max(LEAST, self.left())

        def one(model: str) -> tuple[str, list[Event]]:
            return self._do(replace(self.base, job="prepare", model=model), left)

        with ThreadPoolExecutor() as pool:
            ended = dict(zip(models, pool.map(one, models), strict=True))
        broken = {model: f"not exported: {why}" for model, (why, _) in ended.items() if why}
        return broken, [event for _, events in ended.values() for event in events]

    def _absent(self, reason: str) -> list[Event]:
        """Say of everything in the stage why it is not there."""
        if not self.stage.parts:
            return [{"event": self.stage.name.removesuffix("s"), "why": reason}]
        return self._missing([], dict.fromkeys([model for model, _ in self.stage.groups], reason))

    def _missing(
        self,
        found: Iterable[Event],
        reasons: dict[str, str],
        groups: Iterable[tuple[str, int]] | None = None,
    ) -> list[Event]:
        """Make cells of all candidates that nothing is known of, with a model's reason."""
        known = _known(found)
        cells = [
            (model, size, kind.name, precision)
            for model, size in (self.stage.groups if groups is None else groups)
            for kind, precision in self.stage.candidates
        ]
        return [
            {**dict(zip(KEY, key, strict=True)), "event": "cell", "absent": reason}
            for key in cells
            if key not in known
            for reason in [reasons.get(key[0], "no time left")]
        ]


def _known(events: Iterable[Event]) -> set[tuple[Any, ...]]:
    """List the cells that have a time or a reason, or were compared if that was all."""
    return {
        tuple(event[name] for name in KEY)
        for event in events
        if event["event"] == "cell"
        if event.get("ms") or event.get("absent") or event.get("step_error") is not None
    }


def test_events(seconds: float, work: str, *, dry: bool) -> list[Event]:
    """Run tests/gpu on the card, without ONNX Runtime's own backend, and list its tests."""
    report = Path(work) / "tests.xml"
    chosen = "fake and while_loop" if dry else "real and not onnxruntime"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts="),
        *("--import-mode=importlib", f"--junitxml={report}", "-k", chosen, "tests/gpu"),
    ]
    report.unlink(missing_ok=True)
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
        said = first_line(RuntimeError(done.stdout.strip() or done.stderr.strip()))
    except subprocess.TimeoutExpired:
        said = f"not done after {seconds:.0f} s"
    if not report.is_file():
        return [{"event": "test", "why": said}]
    found = []
    for case in xml.parse(report).iter("testcase"):
        ends = {end.tag: end.get("message", "") for end in case if end.tag in _ENDS}
        end = next(iter(ends), "")
        values = {"name": f"{case.get('name')}", "outcome": _ENDS[end], "why": ends.get(end, "")}
        found.append({"event": "test", **values, "seconds": float(case.get("time", 0))})
    return found


_ENDS = {"": "passed", "failure": "failed", "error": "failed", "skipped": "skipped"}


def hardware(dry: bool) -> dict[str, Any]:
    """Describe the GPU and what drives it; MissingDependencyError if there is none."""
    versions = {name: version(name) or "missing" for name in _PACKAGES}
    if dry:
        return {"gpu": "none: a dry run", **machine(), **versions}
    device = open_device()
    found: dict[str, Any] = {"gpu": device.name, "arch": device.arch}
    query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
        found["driver"], found["gpu memory"] = map(str.strip, said.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        found["driver"] = f"unknown: {first_line(error)}"
    return {**found, **machine(), **versions}
