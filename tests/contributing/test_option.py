"""An option of `difftool sample`, added to a copy of the package as CONTRIBUTING.md says."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from difftool.cli import main
from tests.contributing.conftest import listed

SOURCE: Final = Path(__file__).resolve().parents[2] / "src" / "difftool"
MOST_EDITS: Final = 4

# --reach, how far along the way of --between to go: file, what stands there once, what then does.
EDITS: Final = [
    (
        "runtime/request.py",
        "    deterministic: bool = False\n",
        '    reach: float = 1.0\n    """How far along the way of `between` to go."""\n\n'
        "    deterministic: bool = False\n",
    ),
    ("runtime/request.py", "* (np.pi / 2)", "* (np.pi / 2) * self.reach"),
    (
        "cli/sample.py",
        "    between: Annotated[\n",
        '    reach: Annotated[float, Option(metavar="SHARE", help="How far to go.")] = 1.0,\n'
        "    between: Annotated[\n",
    ),
    (
        "cli/sample.py",
        "            between=inputs.between,\n",
        "            between=inputs.between,\n            reach=reach,\n",
    ),
]

DRAW: Final = """
import sys
import numpy
import difftool
model = difftool.load(sys.argv[1], threads=1)
numpy.save("whole.npy", model.sample(n=5, between=(0, 1)))
numpy.save("half.npy", model.sample(n=3, between=(0, 1), reach=0.5))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The folder of a copy of the package in which the edits were made; without large files."""
    left_out = shutil.ignore_patterns("models", "extractors", "page", "__pycache__")
    copy = shutil.copytree(SOURCE, tmp_path / "package" / "difftool", ignore=left_out)
    for name, old, new in EDITS:
        text = (copy / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} holds {text.count(old)} times {old!r}"
        (copy / name).write_text(text.replace(old, new), encoding="utf-8")
    return copy.parent


def run(package: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """A process beside a package, which it imports."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=package.parent,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
    )


def test_a_new_option_takes_few_edits(package: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    assert len(EDITS) <= MOST_EDITS
    files = {f"src/difftool/{name}" for name, _, _ in EDITS}
    assert files == {file for file in listed("An option") if file.startswith("src/")}
    line = ("sample", tiny_bundle, "-n", 3, "--between", "0,1", "--reach", 0.5, "--threads", 1)
    done = run(package, "-m", "difftool", *line, "--out", "command.npy", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reach"] == 0.5
    assert "--reach SHARE" in run(package, "-m", "difftool", "sample", "--help").stdout
    done = run(package, "-c", DRAW, tiny_bundle)
    assert done.returncode == 0, done.stderr
    command, half, whole = (np.load(tmp_path / f"{n}.npy") for n in ("command", "half", "whole"))
    np.testing.assert_array_equal(command, half)
    np.testing.assert_allclose(half, whole[:3], atol=1e-4)
    assert np.abs(half[2] - whole[4]).max() > 1e-2


def test_without_the_edits_there_is_no_such_option(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", str(tiny_bundle), "--reach", "0.5"]) == 2
    assert "--reach" in capsys.readouterr().err
