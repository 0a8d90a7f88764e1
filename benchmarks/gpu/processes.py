"""Requests in processes of their own, and what becomes of them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from common.machine import ROOT

from difftool.errors import DifftoolError
from gpu.part import Request, note, run_part
from gpu.timing import fake_clock

# Does a request, writes its journal, and says how it went wrong, if it did.
Launch = Callable[[Request, Path, float], str]


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


def run_with_journal(
    request: Request, launch: Launch, timeout: float
) -> tuple[str, list[dict[str, Any]]]:
    """Do a request; give how it went wrong, if it did, and the events of its journal."""
    batches = "-".join(map(str, request.batches))
    name = f"{request.stage}-{request.job}-{request.model}-{batches}.jsonl"
    journal = Path(request.work) / name
    journal.unlink(missing_ok=True)
    ended = launch(request, journal, timeout)
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []
    events = []
    for line in lines:
        try:
            events.append({**json.loads(line), "model": request.model})
        except json.JSONDecodeError:  # the last one, if the process died in the middle of it
            break
    return ended, events
