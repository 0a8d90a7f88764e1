"""Commands in processes of their own, which may be short of disk or privileges, or interrupted."""

import contextlib
import io
import os
import resource
import signal
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from difftool.cli import main
from tests.reliability import forked
from tests.reliability.file_layer import Hook, before, watched
from tests.reliability.training_defects import Defect

NOBODY: Final = 65534


@dataclass(frozen=True)
class Trouble:
    """What a command meets with.

    No file may grow beyond `largest` bytes; without privileges root is nobody. The signal `number`
    comes with file operation `at`, or else after some `seconds`.
    """

    largest: int | None = None
    privileged: bool = True
    number: int | None = None
    at: int | None = None
    seconds: float = 0.0
    defect: Defect | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended; a `code` of -1 is an exception that came through."""

    code: int
    out: str
    err: str


def run(line: str, folder: Path, trouble: Trouble | None = None) -> Ended:
    """Run a command line in `folder`."""
    trouble = trouble or Trouble()
    process, ours = forked.connected(_run, line.split(), folder, trouble)
    with ours:
        try:
            assert ours.recv() == "it begins"
            if trouble.number is not None and trouble.at is None and not ours.poll(trouble.seconds):
                os.kill(process.pid or 0, trouble.number)
            assert ours.poll(forked.PATIENCE), f"{line} hangs"
            ended = ours.recv()
        finally:
            process.kill()
            process.join()
    assert isinstance(ended, Ended)
    return ended


def _run(answer: Connection, line: list[str], folder: Path, trouble: Trouble) -> None:
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    _prepare(trouble)
    out, err = io.StringIO(), io.StringIO()
    code = -1
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            watched(_signalling(trouble)),
        ):
            answer.send("it begins")
            code = main(line)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        answer.send(Ended(code, out.getvalue(), err.getvalue()))


def _prepare(trouble: Trouble) -> None:
    if trouble.defect is not None:
        trouble.defect()
    if not trouble.privileged and os.geteuid() == 0:
        os.setuid(NOBODY)
    if trouble.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (trouble.largest, trouble.largest))


def _signalling(trouble: Trouble) -> Hook:
    """Sends this process the signal as file operation `at` begins."""

    def interrupt(count: int, *_: object) -> None:
        if count == trouble.at and trouble.number is not None:
            os.kill(os.getpid(), trouble.number)

    return before(interrupt)
