"""Commands in processes of their own, which may be short of disk or privileges, or interrupted."""

import contextlib
import io
import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from difftool import cli
from tests.reliability import forked
from tests.reliability.file_layer import Hook, before, watched
from tests.reliability.moments import Calls
from tests.reliability.training_defects import Defect

NOBODY: Final = 65534


@dataclass(frozen=True)
class Trouble:
    """What a command meets with.

    No file may grow beyond `largest` bytes; without privileges root is nobody. The signal `number`
    comes with file operation `at`, or with the command's own `call` of that number.
    """

    largest: int | None = None
    privileged: bool = True
    number: int | None = None
    at: int | None = None
    call: int | None = None
    defect: Defect | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended, and after how many calls; a `code` of -1 is an exception."""

    code: int
    out: str
    err: str
    calls: int = 0


def run(line: str, folder: Path, trouble: Trouble | None = None) -> Ended:
    """Run a command line in `folder`."""
    trouble = trouble or Trouble()
    process, ours = forked.connected(_run, line.split(), folder, trouble)
    with ours:
        try:
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
            _counted(trouble) as calls,
        ):
            code = cli.main(line)
    finally:
        answer.send(Ended(code, out.getvalue(), err.getvalue(), calls.count))


@contextlib.contextmanager
def _counted(trouble: Trouble) -> Iterator[Calls]:
    """Counts the calls of the command itself, and sends this process the signal at one of them.

    Before and after them it is the interpreter that a signal would end, and not the command.
    """
    number = trouble.number or signal.SIGINT
    calls = Calls(trouble.call or 0, lambda: os.kill(os.getpid(), number))
    run = cli._run

    def counted(arguments: list[str]) -> int:
        with calls:
            return run(arguments)

    cli._run = counted
    yield calls
    cli._run = run


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
