"""Running a command: in this process where that is enough, in one of its own where it is not."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from difftool.cli import main

# As if PyTorch were not installed, which other libraries look for, too.
WITHOUT_TORCH = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name == "torch" else find(name, *more)
"""
ENTRY = "import sys; from difftool.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


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
def spawn(tmp_path: Path) -> Command:
    """Run a command line in a process of its own, in `tmp_path`; `setup` is code to run before."""

    def run(*arguments: object, setup: str = "") -> Done:
        done = subprocess.run(
            command(arguments, setup), cwd=tmp_path, capture_output=True, text=True
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def command(arguments: Sequence[object], setup: str = "") -> list[str]:
    """The command line of a new interpreter."""
    return [sys.executable, "-c", f"{setup}\n{ENTRY}", *map(str, arguments)]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content, and every folder with none."""
    found = {}
    for parent, folders, files in os.walk(folder):
        found |= {os.path.join(parent, name): b"" for name in folders}
        found |= {os.path.join(parent, name): Path(parent, name).read_bytes() for name in files}
    return found
