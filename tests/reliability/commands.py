"""Commands in processes of their own, which may be short of disk or privileges, or interrupted."""

import contextlib
import io
import os
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from difftool.cli import command as module
from difftool.cli.command import command
from difftool.cli.signals import Signals
from tests.reliability import forked
from tests.reliability.file_layer import Hook, before, watched
from tests.reliability.moments import Calls
from tests.reliability.training_defects import Defect

NOBODY: Final = 65534


@dataclass(frozen=True)
class Trouble:
    """What a command meets with.

    No file may grow beyond `largest` bytes; without privileges root is nobody. The signal `number`
    comes with file operation `at`, or with the command's own `call` of that number, and the signal
    `second` so many operations or calls `later`.
    """

    largest: int | None = None
    privileged: bool = True
    number: int | None = None
    at: int | None = None
    call: int | None = None
    second: int | None = None
    later: int = 0
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
    code, signals = -1, Signals()
    signals.install()  # as the process of the command line does, to its end
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            watched(_signalling(trouble)),
            _counted(trouble) as calls,
        ):
            code = command(line, signals)
    finally:
        signals.ignore()
        answer.send(Ended(code, out.getvalue(), err.getvalue(), calls.count))


@contextlib.contextmanager
def _counted(trouble: Trouble) -> Iterator[Calls]:
    """Counts the calls of the command itself, and sends this process the signals at some of them.

    Before and after them it is the interpreter that a signal would end, and not the command.
    """
    calls = Calls(_moments(trouble.call, trouble), _send)
    run = module._run

    def counted(arguments: list[str]) -> int:
        with calls:
            return run(arguments)

    module._run = counted
    yield calls
    module._run = run


def _moments(first: int | None, trouble: Trouble) -> dict[int, int]:
    """The signals by when they come, if the first one comes at `first`."""
    if first is None or trouble.number is None:
        return {}
    sent = {first: trouble.number}
    if trouble.second is not None:
        sent[first + trouble.later] = trouble.second
    return sent


def _send(number: int) -> None:
    os.kill(os.getpid(), number)


def _prepare(trouble: Trouble) -> None:
    if trouble.defect is not None:
        trouble.defect()
    if not trouble.privileged and os.geteuid() == 0:
        os.setuid(NOBODY)
    if trouble.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (trouble.largest, trouble.largest))


def _signalling(trouble: Trouble) -> Hook:
    """Sends this process the signals as file operations begin."""
    sent = _moments(trouble.at, trouble)

    def interrupt(count: int, *_: object) -> None:
        if count in sent:
            _send(sent[count])

    return before(interrupt)
