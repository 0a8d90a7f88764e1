"""Run commands in processes of their own: short of disk or privileges, or interrupted."""

import contextlib
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from difftool.cli.command import command
from difftool.cli.signals import Signals
from tests.reliability import forked
from tests.reliability.file_layer import before, watched
from tests.reliability.moments import Calls

NOBODY: Final = 65534
_RAISED: Final = 70  # the exit code of a command that raised, which none may do

Defect = Callable[[], object]


@dataclass(frozen=True)
class Trouble:
    """The conditions under which a command runs.

    No file may grow beyond `largest` bytes. If not `privileged`, root becomes nobody. `operations`
    and `calls` say which signal comes at which file operation and at which call of a Python
    function; both are numbered from 1. A `defect` is planted first. `counted` counts calls even if
    no signal comes at one.
    """

    largest: int | None = None
    privileged: bool = True
    operations: Mapping[int, int] = field(default_factory=dict)
    calls: Mapping[int, int] = field(default_factory=dict)
    defect: Defect | None = None
    counted: bool = False


@dataclass(frozen=True)
class Ended:
    """The end of a command.

    `calls` of Python functions, if they were counted, measure its work. Time would not, since it
    depends on what else the machine does.
    """

    code: int
    out: str
    err: str
    calls: int = 0
    peak: int = 0  # the process's memory, KiB

    @property
    def error_code(self) -> str:
        """Return the stable word in the first line of stderr, "" if there is none."""
        first = self.err.partition("\n")[0]
        return first[first.rindex("[") + 1 : -1] if first.endswith("]") else ""


def run(line: str | Sequence[object], folder: Path, trouble: Trouble | None = None) -> Ended:
    """Run a command line in `folder`; AssertionError if a signal or a crash ends its process."""
    words = line.split() if isinstance(line, str) else [str(word) for word in line]
    return forked.call(_run, words, folder, trouble or Trouble())


def require_one_error(ended: Ended, codes: Iterable[int]) -> None:
    """AssertionError unless a command ended with one of the codes, and one line and a hint."""
    assert "Traceback" not in ended.err, ended.err
    assert ended.code in codes, f"exit code {ended.code}: {ended.err}{ended.out[:200]}"
    error, *hints = ended.err.splitlines() or ["nothing on stderr"]
    assert error.startswith("error: "), ended.err or error
    assert len(hints) <= 1, ended.err
    assert all(hint.startswith("hint: ") for hint in hints), ended.err


def _run(words: list[str], folder: Path, trouble: Trouble) -> Ended:
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    with _printed() as printed:
        ended = _ended(words, trouble)
    out, err = printed
    return replace(ended, out=out, err=err)


def _ended(words: list[str], trouble: Trouble) -> Ended:
    signals, calls = Signals(), Calls(trouble.calls, _send)

    def interrupt(count: int, *_: object) -> None:
        if count in trouble.operations:
            _send(trouble.operations[count])

    # A shell lets background processes ignore Ctrl-C, and the tests may be one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signals.install()  # as difftool's own process does
    try:
        _prepare(trouble)
        with contextlib.ExitStack() as stack:
            if trouble.operations:
                stack.enter_context(watched(before(interrupt)))
            if trouble.counted or trouble.calls:
                stack.enter_context(calls)
            code = command(words, signals)
    except BaseException:
        traceback.print_exc()
        code = _RAISED
    finally:
        signals.ignore()
    return Ended(code, "", "", calls.count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


@contextlib.contextmanager
def _printed() -> Iterator[list[str]]:
    """Collect all that the process prints: Python and libraries, on stdout and on stderr.

    Pipes hold it, because limits on the size of files do not apply to them.
    """
    readers, found = [], list[str]()
    for descriptor in (1, 2):
        reader, writer = os.pipe()
        os.dup2(writer, descriptor)
        os.close(writer)
        readers.append(reader)
    yield found
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor, reader in zip((1, 2), readers, strict=True):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)  # ends the pipe
        with open(reader, errors="replace") as file:
            found.append(file.read())


def _send(number: int) -> None:
    os.kill(os.getpid(), number)


def _prepare(trouble: Trouble) -> None:
    if trouble.defect is not None:
        trouble.defect()
    if not trouble.privileged and os.geteuid() == 0:
        os.setuid(NOBODY)
    if trouble.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (trouble.largest, trouble.largest))
