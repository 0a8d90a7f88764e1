"""difftool measure writes a table into a bundle, and difftool sample --quality draws by it."""

import shutil
from pathlib import Path

import pytest

from difftool.bundle import MANIFEST
from tests.cli.conftest import Command

FEW = ("--sampler", "ddim", "--steps", "3,5", "-n", 20)


@pytest.fixture
def points(points_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(points_bundle, tmp_path / "points")


def test_measured_programs_are_drawn_by_their_quality(
    difftool: Command, points: Path, tmp_path: Path
) -> None:
    found = difftool("measure", points, "--against", "moons", *FEW, "--json").json()
    assert [each["evaluations"] for each in found["programs"][:2]] == [3, 5]
    assert found["figure"] == "sliced_wasserstein"
    least = min(each["distance"] for each in found["programs"])
    assert found["qualities"]["best"]["distance"] == least
    for quality, picked in found["qualities"].items():
        out = tmp_path / f"{quality}.npz"
        line = ("sample", points, "--quality", quality, "-n", 2, "--out", out)
        record = difftool(*line, "--json").json()
        assert record["quality"] == quality
        assert record["program"].startswith(picked["program"].partition(",")[0])
        said = difftool(*line, "--force").out
        assert f"{picked['evaluations']} steps of" in said, "it says what it took"
    assert difftool("inspect", points, "--json").json()["measured"]["n"] == 20


def test_for_people(difftool: Command, points: Path) -> None:
    done = difftool("measure", points, "--against", "moons", *FEW)
    assert done.err.count("ddim(steps=") == 2, "each program as it is measured"
    assert "on the front" in done.out
    assert "draft" in done.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("sample", "{}", "--quality", "good"), "no program of points was measured"),
        (("sample", "{}", "--quality", "superb"), "unknown quality 'superb'"),
        (("sample", "{}", "--quality", "good", "--steps", 3), "--quality chooses the sampler"),
        (("measure", "{}", "--against", "moons", "--steps", "a"), "names no steps"),
        (("measure", "{}", "--against", "moons", "--steps", "0"), "names no steps"),
        (("measure", "{}", "--against", "moons", "--sampler", "best"), "unknown sampler"),
        (("measure", "{}", "--against", "nowhere"), "nowhere"),
        (("measure", "{}", "--against", "moons", "-n", 0), "0"),
    ],
)
def test_what_has_no_meaning_changes_nothing(
    difftool: Command, points: Path, line: tuple[object, ...], said: str
) -> None:
    before = (points / MANIFEST).read_bytes()
    done = difftool(*(str(word).format(points) for word in line))
    assert done.code in (2, 3)
    assert said in done.err
    assert (points / MANIFEST).read_bytes() == before
