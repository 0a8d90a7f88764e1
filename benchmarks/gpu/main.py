"""Measure models at batches in processes of their own, within minutes, and report what is found."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from common.inside import open_device
from common.machine import ROOT, machine, version
from common.report import failed, figures_in, parser, write

from difftool.errors import DifftoolError, MissingDependencyError, first_line
from gpu.page import page
from gpu.part import Request, note, run_part
from gpu.results import KEY, Results
from gpu.timing import fake_clock

MODELS, BATCHES = ("cifar10", "ddpm-mnist", "ncsn-mnist"), (1, 16, 64, 256)
GRACE = 20.0  # seconds that a part may go on for after its time
TRIES = 3  # of a part, each without the candidate that ended the last one
LEAST = 15.0  # seconds: with less left no process is started

_PACKAGES = (
    "cuda-bindings", "cuda-core", "nvidia-cudnn-cu13", "onnxruntime-gpu", "tensorrt",
    "tensorrt-rtx", "triton",
)  # fmt: skip

# Does a request, writes its journal, and says how it went wrong, if it did.
Launch = Callable[[Request, Path, float], str]


class Part(NamedTuple):
    """Batches of a model in one process, and how much of the time that is left they may have."""

    model: str
    batches: tuple[int, ...]
    weight: float


PARTS = (
    Part("cifar10", (1,), 9),
    Part("cifar10", (256,), 6),
    Part("ddpm-mnist", (1,), 2),
    Part("ncsn-mnist", (1,), 2),
    Part("cifar10", (64, 16), 3),
    Part("ddpm-mnist", (256, 64, 16), 2),
    Part("ncsn-mnist", (256, 64, 16), 2),
)
DRY_PARTS = (Part("tiny", (1, 4), 1),)


def main(description: str = "", arguments: Sequence[str] | None = None) -> int:
    found = parser(description, "out", "work", rounds=5)
    found.add_argument("--minutes", type=float, default=7.5, help="for all of it")
    found.add_argument("--only", action="append", choices=MODELS, help="a model; repeatable")
    found.add_argument("--batch", action="append", type=int, help="a batch; repeatable")
    found.add_argument("--dry-run", action="store_true", help="on the CPU, with a fake clock")
    options = found.parse_args(arguments)
    try:
        if options.dry_run:
            with tempfile.TemporaryDirectory() as folder:
                options.work, options.out = Path(folder), options.out or Path(tempfile.mkdtemp())
                return measure(options, DRY_PARTS, in_process, {"gpu": "none: a dry run"}, "cpu")
        return measure(options, chosen(options.only, options.batch), in_child, gpu(), "cuda")
    except DifftoolError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return error.exit_code


def measure(
    options: Namespace, parts: Sequence[Part], launch: Launch, hardware: dict[str, Any], device: str
) -> int:
    """Measure all parts, print the figures, write what was found, and give the exit code."""
    end = time.monotonic() + 60 * options.minutes
    options.work.mkdir(parents=True, exist_ok=True)
    base = Request("", str(options.work), device, rounds=options.rounds)
    results = Results()
    broken = _prepare(results, base, [part.model for part in parts], launch, end)
    _run(results, "", replace(base, job="machine"), launch, min(60.0, end - time.monotonic()))
    for index, part in enumerate(parts):
        groups = [(part.model, size) for size in part.batches]
        if part.model in broken:
            results.fill(groups, broken[part.model])
            continue
        weights = [later.weight for later in parts[index:]]
        seconds = (end - time.monotonic()) * part.weight / sum(weights)
        print(f"gpu: {part.model}, batches {part.batches}: {seconds:.0f} s", file=sys.stderr)
        run_tries(results, part, base, launch, seconds)
        results.fill(groups, "no time left")
    return _finish(results, options, hardware)


def run_tries(results: Results, part: Part, base: Request, launch: Launch, seconds: float) -> None:
    """Run a part; if its process dies, again without the candidate that it died of."""
    end = time.monotonic() + seconds
    skipped: list[list[Any]] = []
    done: list[int] = []
    for _ in range(TRIES):
        left = end - time.monotonic()
        if left < LEAST:
            return
        request = replace(base, job="speed", model=part.model, batches=part.batches, seconds=left)
        request = replace(request, skipped=[*skipped], done=[*done])
        ended, events = _run(results, part.model, request, launch, left + GRACE)
        done += [event["batch"] for event in events if event["event"] == "done"]
        if not ended:
            return
        doing = [event for event in events if event["event"] == "doing"]
        last = doing[-1] if doing else {"candidate": "", "what": "beginning"}
        if not last["candidate"] or not last["precision"]:
            groups = [(part.model, size) for size in part.batches if size not in done]
            results.fill(groups, f"{last['what']}: {ended}")
            return
        cell = {name: last[name] for name in KEY[1:]}
        skipped.append([*cell.values()])
        known = results.cells.get((part.model, *cell.values()))
        if known is None or not (known.ms or known.absent):
            why = f"{last['what']}: {ended}"
            results.take(part.model, {"event": "cell", **cell, "absent": why})


def in_child(
    request: Request, journal: Path, timeout: float, program: Sequence[str] = ("-m", "gpu.part")
) -> str:
    """Do a request in a process of its own, which is ended when its time is over.

    `program` are the arguments of Python, to which the request is added.
    """
    values = json.dumps({**asdict(request), "journal": str(journal)})
    log = journal.with_suffix(".log")
    path = [str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    with log.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, *program, values],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(timeout)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)  # with the compilers that it started
            child.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return f"not done after {timeout:.0f} s"
    if code == 0:
        return ""
    if code < 0:
        return f"the process died of {signal.Signals(-code).name}"
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"the process failed: {lines[-1][:200] if lines else code}"


def in_process(request: Request, journal: Path, timeout: float) -> str:
    """Do a request in this process and with a clock that is not real."""
    try:
        run_part(replace(request, round_seconds=0.002), partial(note, journal), fake_clock())
    except DifftoolError as error:
        return str(error)
    return ""


def gpu() -> dict[str, Any]:
    """Describe the GPU and what drives it; MissingDependencyError if there is none for torch."""
    device = open_device()
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError.extra("torch", "train") from error
    if not torch.cuda.is_available():
        raise MissingDependencyError("the installed torch has no CUDA", "install one that has")
    found: dict[str, Any] = {"gpu": device.name, "arch": device.arch, "cuda": torch.version.cuda}
    query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
        found["driver"], found["gpu memory"] = map(str.strip, said.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        found["driver"] = f"unknown: {first_line(error)}"
    return found


def _prepare(
    results: Results, base: Request, names: Iterable[str], launch: Launch, end: float
) -> dict[str, str]:
    """Export all models at the same time, and list those that cannot be, and why."""
    models = list(dict.fromkeys(names))
    left = max(LEAST, end - time.monotonic())

    def one(model: str) -> str:
        return _run(results, model, replace(base, job="prepare", model=model), launch, left)[0]

    with ThreadPoolExecutor() as pool:
        ended = dict(zip(models, pool.map(one, models), strict=True))
    return {model: f"not exported: {why}" for model, why in ended.items() if why}


def _run(
    results: Results, model: str, request: Request, launch: Launch, timeout: float
) -> tuple[str, list[dict[str, Any]]]:
    """Do a request and take in its journal; give how it went wrong, if it did, and its events."""
    batches = "-".join(map(str, request.batches))
    journal = Path(request.work) / f"gpu-{request.job}-{model}-{batches}.jsonl"
    journal.unlink(missing_ok=True)
    ended = launch(request, journal, timeout)
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []
    events = []
    for line in lines:
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:  # the last one, if the process died in the middle of it
            break
        results.take(model, events[-1])
    return ended, events


def chosen(models: Sequence[str] | None, sizes: Sequence[int] | None) -> list[Part]:
    """Pick the parts of the models and batches that were asked for; all by default."""
    wanted = [
        part._replace(batches=tuple(size for size in part.batches if size in (sizes or BATCHES)))
        for part in PARTS
        if part.model in (models or MODELS)
    ]
    return [part for part in wanted if part.batches]


def _finish(results: Results, options: Namespace, hardware: dict[str, Any]) -> int:
    versions = {name: version(name) or "missing" for name in _PACKAGES}
    setup = {"minutes": options.minutes, "rounds": options.rounds}
    record = results.record({**hardware, **machine(), **versions}, setup)
    found = figures_in(record)
    for figure in found:
        print("  ".join(cell for cell in figure.cells() if cell))
    if options.out is not None:
        write(options.out, record, page(record))
        print(f"wrote {options.out / 'gpu.md'} and gpu.json", file=sys.stderr)
    return failed(found)
