"""An option of `difftool sample` takes few edits, in two files."""

import json
from pathlib import Path

import numpy as np
import pytest

from difftool.cli import main
from tests.contributing.conftest import Project, listed

MOST_EDITS = 4
REQUEST, SAMPLE = "src/difftool/runtime/request.py", "src/difftool/cli/sample.py"
# --reach, the part of the way of --between to go. Each edit is a file, its old text and its new.
EDITS = (
    (
        REQUEST,
        "    deterministic: bool = False\n",
        '    reach: float = 1.0\n    """The part of the way of `between` to go."""\n\n'
        "    deterministic: bool = False\n",
    ),
    (REQUEST, "* (np.pi / 2)", "* (np.pi / 2) * self.reach"),
    (
        SAMPLE,
        "    between: Annotated[\n",
        '    reach: Annotated[float, Option(metavar="SHARE", help="How far to go.")] = 1.0,\n'
        "    between: Annotated[\n",
    ),
    (
        SAMPLE,
        "            between=inputs.between,\n",
        "            between=inputs.between,\n            reach=reach,\n",
    ),
)
DRAW = """
import sys
import numpy
import difftool
model = difftool.load(sys.argv[1], threads=1)
numpy.save("whole.npy", model.sample(n=5, between=(0, 1)))
numpy.save("half.npy", model.sample(n=3, between=(0, 1), reach=0.5))
"""


@pytest.fixture(scope="module")
def option(project: Project) -> Project:
    for edit in EDITS:
        project.replace(*edit)
    return project


def test_the_list_names_all_files_of_the_package(option: Project) -> None:
    assert len(EDITS) <= MOST_EDITS
    assert option.changed() == {file for file in listed("An option") if file.startswith("src/")}


def test_commands_and_calls_find_it(option: Project, tiny_bundle: Path, tmp_path: Path) -> None:
    line = f"sample {tiny_bundle} -n 3 --between 0,1 --reach 0.5 --threads 1"
    said = option.difftool(tmp_path, "sample --help", f"{line} --out command.npy --json")
    assert "--reach SHARE" in said
    assert json.loads(said[said.index("\n{") :])["reach"] == 0.5
    option.python("-c", DRAW, tiny_bundle, folder=tmp_path)
    command, half, whole = (np.load(tmp_path / f"{n}.npy") for n in ("command", "half", "whole"))
    np.testing.assert_array_equal(command, half)
    np.testing.assert_allclose(half, whole[:3], atol=1e-4)
    assert np.abs(half[2] - whole[4]).max() > 1e-2


def test_without_the_edits_there_is_no_such_option(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", str(tiny_bundle), "--reach", "0.5"]) == 2
    assert "--reach" in capsys.readouterr().err
