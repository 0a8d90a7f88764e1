"""Commands in processes of their own, which may be short of disk or privileges, or interrupted."""

import contextlib
import io
import os
import resource
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from difftool.cli.command import command
from difftool.cli.signals import Signals
from tests.reliability import forked
from tests.reliability.file_layer import Hook, before, watched
from tests.reliability.training_defects import Defect

NOBODY: Final = 65534


@dataclass(frozen=True)
class Trouble:
    """What a command meets with.

    No file may grow beyond `largest` bytes; without privileges root is nobody. The signal `number`
    comes with file operation `at`, and the signal `second` `later` operations after it; or else the
    one after some `seconds`, and the other `later` milliseconds after it.
    """

    largest: int | None = None
    privileged: bool = True
    number: int | None = None
    at: int | None = None
    seconds: float = 0.0
    second: int | None = None
    later: int = 0
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
                if trouble.second is not None and not ours.poll(trouble.later / 1000):
                    os.kill(process.pid or 0, trouble.second)
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
    code, signals = -1, Signals()
    signals.install()  # as the process of the command line does, to its end
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            watched(_signalling(trouble)),
        ):
            answer.send("it begins")
            code = command(line, signals)
    finally:
        signals.ignore()
        answer.send(Ended(code, out.getvalue(), err.getvalue()))


def _prepare(trouble: Trouble) -> None:
    if trouble.defect is not None:
        trouble.defect()
    if not trouble.privileged and os.geteuid() == 0:
        os.setuid(NOBODY)
    if trouble.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (trouble.largest, trouble.largest))


def _signalling(trouble: Trouble) -> Hook:
    """Sends this process the signals as file operations begin."""
    sent = {} if trouble.at is None else {trouble.at: trouble.number}
    if trouble.at is not None and trouble.second is not None:
        sent[trouble.at + trouble.later] = trouble.second

    def interrupt(count: int, *_: object) -> None:
        if number := sent.get(count):
            os.kill(os.getpid(), number)

    return before(interrupt)
