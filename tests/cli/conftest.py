"""Running a command: in this process if that is enough, or in one of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from difftool.cli import main

# Hides PyTorch, also from the libraries that look for it without an import.
WITHOUT_TORCH = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name == "torch" else find(name, *more)
"""
SHOW_IMPORTS = """
import atexit, sys
atexit.register(lambda: print(sorted(sys.modules), file=sys.stderr))
"""
ENTRY = "import sys; from difftool.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Done:
    """The end of a command: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return the document on stdout; the command must have passed without a word on stderr."""
        assert (self.code, self.err) == (0, "")
        return json.loads(self.out)

    def refused(self, code: int, message: str, hint: str = "") -> None:
        """Demand this exit code, a line with the message, a line with the hint, and no more."""
        assert (self.code, self.out) == (code, "")
        error, hinted = self.err.splitlines()
        assert error.startswith("error: ")
        assert message in error
        assert hinted.startswith("hint: ")
        assert hint in hinted


Command = Callable[..., Done]
Refusal = Callable[..., None]


@pytest.fixture
def difftool(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Run a command line in this process, in the folder `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture
def refuses(difftool: Command) -> Refusal:
    """Demand that a command line is refused, and that nothing in `tmp_path` changes."""

    def check(line: Sequence[object], code: int, message: str, hint: str = "") -> None:
        before = tree(Path())
        difftool(*line).refused(code, message, hint)
        assert tree(Path()) == before

    return check


@pytest.fixture
def spawn(tmp_path: Path) -> Command:
    """Run a command line in a process of its own, in `tmp_path`; `setup` is code to run before."""

    def run(*arguments: object, setup: str = "") -> Done:
        done = subprocess.run(
            command(arguments, setup), cwd=tmp_path, capture_output=True, text=True
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def command(arguments: Sequence[object], setup: str = "") -> list[str]:
    """Return the command line of a new interpreter."""
    return [sys.executable, "-c", f"{setup}\n{ENTRY}", *map(str, arguments)]


def tree(folder: Path) -> dict[str, bytes | Path]:
    """Return all below a folder: files with their content, links with their aim, and folders."""
    return {
        str(path): path.readlink()
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else b""
        for path in folder.rglob("*")
    }
