"""The first hour of a new user, as `first_hour.py` plays it."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests import first_hour
from tests.first_hour import TUTORIALS, play


def test_the_first_lesson_leaves_what_a_person_sees(tmp_path: Path) -> None:
    hour = play(tmp_path / "hour", ("first-samples",), Path(sys.executable))
    folder = tmp_path / "hour" / "first-samples"
    said = (folder / "transcript.txt").read_text(encoding="utf-8")
    assert "$ pip install" in said, "it is shown, and not run here"
    assert "16 samples, 50 steps of ddim" in said
    assert "warning: with so few steps, 4," in said
    assert "(4, 1, 28, 28)" in said
    assert said.count("[exit 0, ") == said.count("\n$ difftool") > 5
    with Image.open(folder / "grid.png") as picture:
        assert picture.width > 400
    assert hour.first_picture is not None


def test_a_line_that_fails_ends_the_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [("sh", "difftool sample nowhere --out a.png\ndifftool doctor\n")]
    monkeypatch.setattr(first_hour, "blocks", lambda page: lines)
    with pytest.raises(subprocess.CalledProcessError):
        play(tmp_path / "hour", ("first-samples",), Path(sys.executable))
    said = (tmp_path / "hour/first-samples/transcript.txt").read_text(encoding="utf-8")
    assert "[exit 2, " in said or "[exit 3, " in said
    assert "$ difftool doctor" not in said


def test_all_tutorials_are_played() -> None:
    assert {page.stem for page in (first_hour.ROOT / "docs/tutorials").glob("*.md")} == {*TUTORIALS}
