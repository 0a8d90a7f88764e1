"""K6: signals, one or two, at any moment: exit code 130, one line, nothing half-done, nothing left.

At every line of what writes files, within this process; and in processes of their own, from their
first import to their end.
"""

import contextlib
import dis
import functools
import gc
import inspect
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from difftool import files, owned, undo
from difftool.cli.signals import Signals
from difftool.errors import ResourceError
from difftool.files import atomic_directory, temporary_folder, write_atomic
from tests.fresh import python
from tests.places import IMPORT, furnish, inside
from tests.reliability.criteria import Cases
from tests.reliability.file_layer import before, watched

SIGNALS = (int(signal.SIGINT), int(signal.SIGTERM))
TRACED = (files.__file__, owned.__file__, undo.__file__, contextlib.__file__, shutil.__file__)


def a_new_file(place: Path) -> None:
    write_atomic(place / "new" / "folder" / "file", b"new")


def a_file(place: Path) -> None:
    write_atomic(place / "file", b"new")


def a_file_that_fails(place: Path) -> None:
    write_atomic(place / "file" / "below", b"new")


def a_new_folder(place: Path) -> None:
    with atomic_directory(place / "new" / "folder") as folder:
        (folder / "b").write_bytes(b"new")


def a_folder(place: Path) -> None:
    with atomic_directory(place / "folder", replace=lambda _: ("a", "in/b")) as folder:
        (folder / "b").write_bytes(b"new")


def a_folder_without_an_exchange(place: Path) -> None:
    a_folder(place)


def a_folder_that_fails(place: Path) -> None:
    with atomic_directory(place / "new" / "folder") as folder:
        (folder / "b").write_bytes(b"new")
        raise KeyError


def a_temporary_folder(place: Path) -> None:
    with temporary_folder() as folder:
        (folder / "b").write_bytes(b"new")


WORKS = (
    a_new_file,
    a_file,
    a_file_that_fails,
    a_new_folder,
    a_folder,
    a_folder_without_an_exchange,
    a_folder_that_fails,
    a_temporary_folder,
)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C is heard here, too, if the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class Case:
    """Some work, a signal at line `first` of it, and one `second` file operations later, if any."""

    work: Callable[[Path], None]
    first: int
    second: int = 0

    def __repr__(self) -> str:
        return f"{self.work.__name__}, a signal at {self.first} and {self.second or 'no other'}"


class Interrupting:
    """Within the block signals come to this process as a case says; `lines` are counted."""

    def __init__(self, case: Case) -> None:
        self.case, self.lines, self.operations = case, 0, 0
        self._watched = watched(before(self._operation))

    def __enter__(self) -> "Interrupting":
        self._watched.__enter__()
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        self._watched.__exit__(None, None, None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in TRACED:
            return None
        thrown_into = event == "call" and frame.f_code.co_flags & inspect.CO_GENERATOR
        # Python handles no signal while it throws into a generator, nor at a NOP such as `try:`.
        # If a trace raised there, no clean-up would cover it, so such events do not count.
        if thrown_into or frame.f_code.co_code[frame.f_lasti] == dis.opmap["NOP"]:
            return self._trace
        self.lines += 1
        if self.lines == self.case.first:
            os.kill(os.getpid(), signal.SIGINT)  # after which Python traces no more
        return self._trace

    def _operation(self, *_: object) -> None:
        self.operations += self.lines >= self.case.first
        if self.case.second and self.operations == self.case.second:
            os.kill(os.getpid(), signal.SIGTERM)


def stopped_whole(place: Path, prepare: Callable[[], Signals] = Signals) -> Callable[[Case], int]:
    """Check that work ends interrupted, or done, with all that was there or all that is new."""

    def renew() -> None:
        shutil.rmtree(place, ignore_errors=True)
        (place / "folder" / "in").mkdir(parents=True)
        for name in ("file", "folder/a", "folder/in/b"):
            (place / name).write_bytes(b"old")

    @functools.cache
    def old_and_new(work: Callable[[Path], None]) -> list[dict[str, bytes]]:
        renew()
        old = inside(place)
        with contextlib.suppress(KeyError, ResourceError):
            work(place)
        return [old, inside(place)]

    def check(case: Case) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda descriptor: None)
            patch.setattr("tempfile.tempdir", str(place))
            if case.work is a_folder_without_an_exchange:
                patch.setattr(files, "exchanged_at_once", lambda new, old: False)
            return next(interrupted(case))

    def interrupted(case: Case) -> Iterator[int]:
        # A generator: if a trace raises, Python may go on as if it handled an exception, and what
        # a generator handles is forgotten with it.
        allowed = old_and_new(case.work)
        renew()
        signals, done = prepare(), False
        signals.install()
        try:
            signals.begin()
            with Interrupting(case) as interrupting:
                case.work(place)
                done = True
        except (KeyboardInterrupt, KeyError, OSError, ResourceError):
            signals.raised = False  # as the command line does
        finally:
            signals.restore()
        if inside(place) not in allowed:
            gc.collect()  # as the process of the command line does
        found = inside(place)
        assert found in allowed, f"left: {sorted(found)}"
        assert found == allowed[1] or not done or signals.came, "nobody is told"
        yield interrupting.lines

    return check


def every_case(place: Path, nightly: bool) -> Iterator[Case]:
    """Yield a signal at some lines of every work, in full at all, and a second one after it."""
    chance = random.Random(0)
    for work in WORKS:
        lines = stopped_whole(place)(Case(work, 0))
        for first in range(1, lines + 1) if nightly else range(chance.randint(1, 9), lines + 1, 9):
            yield Case(work, first)
            for second in range(1, 7) if nightly else [chance.randint(1, 6)]:
                yield Case(work, first, second)


@pytest.mark.criterion("K6")
def test_signals_at_every_line(cases: Cases, nightly: bool, tmp_path: Path) -> None:
    cases.run(stopped_whole(tmp_path / "place"), every_case(tmp_path / "place", nightly))


class Hasty(Signals):
    """The defect: each signal raises, also while the one before is cleaned up after."""

    def _take(self, number: int, frame: FrameType | None) -> None:
        super()._take(number, frame)
        if self.raised:
            raise KeyboardInterrupt


@contextlib.contextmanager
def undoing_once(undo: Callable[[], None]) -> Iterator[None]:
    """Undo as it should not be: what is cut short is not done again."""
    try:
        yield
    except BaseException:
        undo()
        raise


@pytest.mark.seeded("K6")
def test_a_folder_that_is_left_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "undoing", undoing_once)
    check = stopped_whole(tmp_path / "place", Hasty)
    found = (Case(a_temporary_folder, first, 1) for first in range(20, 80, 4))
    with pytest.raises(AssertionError, match=r"left: .*difftool"):
        Cases(lambda *_: None).run(check, found)


def test_a_signal_that_a_library_swallowed_is_followed_by_one_that_stops() -> None:
    signals = Signals()
    signals.install()
    try:
        signals.begin()
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            os.kill(os.getpid(), signal.SIGINT)  # disturbs nothing
    finally:
        signals.restore()


LINES = {
    "import": f"{IMPORT} --out new",
    "export": "export run --out new",
    "quantize": "quantize bundle --out new --sampler ddim --steps 2",
    "web": "web bundle --runtime dist --out new",
}
# What a process does first of all: as `python -m difftool`, and as the script that pip installs.
SCRIPT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
MODULE, FUNCTION = SCRIPT["project"]["scripts"]["difftool"].split(":")
ENTRIES = {
    "module": "import runpy; runpy.run_module('difftool', run_name='__main__', alter_sys=True)",
    "script": f"import sys; from {MODULE} import {FUNCTION}; sys.exit({FUNCTION}())",
}
# As in a shell: one that runs a job in the background lets it ignore Ctrl-C.
HEARD = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
# Sends the first signal as a module is imported, and others so many events of Python's audit later.
PRELUDE = """
import os, sys
module, first, later = {module!r}, {first}, {later}
count = None
def look(event, arguments):
    global count
    if event == "os.kill":
        return
    if count is None:
        if event == "import" and arguments[0] == module:
            count = 0
            os.kill(os.getpid(), first)
    else:
        count += 1
        if count in later:
            os.kill(os.getpid(), later[count])
sys.addaudithook(look)
"""
AT_EXIT = """
import atexit, os
atexit.register(lambda: [os.kill(os.getpid(), number) for number in (2, 15, 2)])
"""


@dataclass(frozen=True)
class Moment:
    """A signal as a command imports a module, and others so many events later."""

    command: str
    entry: str
    module: str
    first: int
    later: tuple[tuple[int, int], ...] = ()


@pytest.fixture
def place(tmp_path: Path, tiny_bundle: Path, points_checkpoint: Path) -> Path:
    return furnish(tmp_path / "place", {"bundle": tiny_bundle, "run": points_checkpoint})


def spawned(line: str, setup: str, entry: str, place: Path) -> subprocess.CompletedProcess[str]:
    (temporary := place.with_name("temporary")).mkdir(exist_ok=True)
    code, env = f"{HEARD}\n{setup}\n{ENTRIES[entry]}", {"TMPDIR": str(temporary)}
    done = python("-c", code, *line.split(), folder=place, env=env, fails=True)
    assert not list(temporary.glob(".difftool*")), "a temporary folder is left"
    return done


def moments(nightly: bool) -> Iterator[Moment]:
    """Yield early ones, while libraries are imported; others come soon after, or near the end."""
    chance = random.Random(0)
    early = ("difftool.cli.command", "typer", "difftool.cli.app", "difftool.cli.web", "numpy")
    for index, module in enumerate(early):
        first, second = SIGNALS if index % 2 else SIGNALS[::-1]
        entry = list(ENTRIES)[index % 2]
        yield Moment("web", entry, module, first)
        yield Moment("quantize", entry, module, second, ((chance.randint(1, 9), first),))
    yield Moment("web", "module", "numpy", 2, tuple((count, 15) for count in range(1, 99)))
    late = ("torch", "onnx", "difftool.files", "difftool.export.bundle", "ctypes", "onnxruntime")
    for command, module, _ in itertools.product(LINES, late, range(4)) if nightly else ():
        first, second = chance.sample(SIGNALS, 2)
        later = tuple((chance.randint(1, 10 ** chance.randint(1, 4)), second) for _ in range(3))
        yield Moment(command, chance.choice(list(ENTRIES)), module, first, later)


@pytest.mark.criterion("K6")
def test_signals_while_a_process_imports_and_ends(cases: Cases, nightly: bool, place: Path) -> None:
    given = inside(place)

    def check(moment: Moment) -> None:
        setup = PRELUDE.format(module=moment.module, first=moment.first, later=dict(moment.later))
        done = spawned(LINES[moment.command], setup, moment.entry, place)
        left = inside(place)
        shutil.rmtree(place / "new", ignore_errors=True)
        if done.returncode == 0:  # it was not imported, or too late
            assert left.keys() > given.keys()
        else:
            assert (done.returncode, done.stderr) == (130, "error: interrupted\n"), done
            assert left == given or "new" in left, f"left: {sorted(left.keys() - given.keys())}"

    cases.run(check, moments(nightly))


@pytest.mark.criterion("K6")
@pytest.mark.parametrize("entry", ENTRIES)
def test_signals_when_the_exit_code_is_known(entry: str, place: Path) -> None:
    for line, code in (("--version", 0), ("sample nowhere", 3)):
        done = spawned(line, AT_EXIT, entry, place)
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        assert done.stdout.startswith("difftool ") or code


def test_with_json_an_early_signal_is_a_document_too(place: Path) -> None:
    setup = PRELUDE.format(module="typer", first=2, later={})
    done = spawned("web bundle --json", setup, "module", place)
    assert json.loads(done.stdout) == {"error": "interrupted", "hint": "", "exit_code": 130}


def test_nothing_heavy_is_imported_before_signals_are_heard() -> None:
    """Only what Python itself loads with the module signal."""
    code = """
import signal, sys
before = {*sys.modules}
install, seen = signal.signal, []
signal.signal = lambda *arguments: (seen.append({*sys.modules} - before), install(*arguments))
import difftool.__main__ as process
sys.argv[1:] = ["--version"]
try:
    process.run()
finally:
    import json
    print(json.dumps(sorted(seen[0])), file=sys.stderr)
"""
    done = python("-c", code)
    names = json.loads(done.stderr)
    assert [name for name in names if name.partition(".")[0] == "difftool"] == [
        "difftool",
        "difftool.__main__",
        "difftool.cli",
        "difftool.cli.signals",
        "difftool.errors",
        "difftool.lazy",
        "difftool.version",
    ]
    assert not {"contextlib", "pathlib", "re", "threading", "typer", "typing"} & {*names}
