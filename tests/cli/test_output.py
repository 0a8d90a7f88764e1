"""--out names folders and files in several ways, and what must stay as it is stays."""

import json
from pathlib import Path

import pytest

from difftool.bundle import read_bundle
from tests.cli.conftest import Command, tree
from tests.places import furnish

FEW = ["--sampler", "ddim", "--steps", "2"]


@pytest.fixture
def place(tmp_path: Path, tiny_bundle: Path, points_checkpoint: Path) -> Path:
    """A folder with a bundle, a run, a page's runtime, a file, and links that lead nowhere."""
    furnish(tmp_path, {"bundle": tiny_bundle, "run": points_checkpoint})
    (tmp_path / "file").write_text("dear")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "into").symlink_to("bundle/more")
    return tmp_path


def web(model: str, out: object, *words: str) -> list[str]:
    return ["web", model, "--runtime", "dist", "--out", str(out), *FEW, *words]


@pytest.mark.parametrize("word", [".", "../bundle", "./", "../bundle/."])
def test_a_bundle_is_replaced_from_within(
    word: str, difftool: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "bundle")
    done = difftool("quantize", place / "bundle", "--out", word, "--force", *FEW, "--json")
    assert done.json()["bundle"] == str(Path(word))
    assert "step.int8.onnx" in read_bundle(place / "bundle").manifest.files


def test_a_page_and_an_export_are_replaced_from_within(
    difftool: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert difftool(*web("bundle", "site")).code == 0
    monkeypatch.chdir(place / "site")
    done = difftool(*web("../bundle", ".", "--force", "--runtime", "../dist"))
    assert (done.code, done.err) == (0, "")
    assert (place / "site" / "index.html").is_file()
    monkeypatch.chdir(place / "bundle")
    done = difftool("export", "../run", "--out", ".", "--force")
    assert (done.code, done.err) == (0, "")
    assert read_bundle(place / "bundle").spec.shape == (2,)


def test_a_link_to_a_folder_is_followed(difftool: Command, place: Path) -> None:
    assert difftool(*web("bundle", "site")).code == 0
    (place / "link").symlink_to("site")
    assert difftool(*web("bundle", "link")).code == 2
    assert difftool(*web("bundle", "link/", "--force")).code == 0
    assert (place / "link").readlink() == Path("site")
    assert not (place / "site").is_symlink()


def test_a_link_to_nothing_names_what_is_made(difftool: Command, place: Path) -> None:
    (place / "link").symlink_to("far/site")
    assert difftool(*web("bundle", "link")).code == 0
    assert (place / "link").readlink() == Path("far/site")
    assert (place / "far" / "site" / "index.html").is_file()


def test_a_link_to_a_file_is_followed(difftool: Command, place: Path) -> None:
    (place / "real.json").write_text("old")
    (place / "link.json").symlink_to("real.json")
    line = ["program", "bundle", "--out", "link.json"]
    assert difftool(*line).code == 2
    assert difftool(*line, "--force").code == 0
    assert (place / "link.json").readlink() == Path("real.json")
    assert json.loads((place / "real.json").read_text())


# The files and links of `place` that some of the outputs below name.
NOWHERE = {
    "the root": "/",
    "the folder above": "bundle/..",
    "a file": "file",
    "below a file": "file/below",
    "a link that goes round": "round",
    "a device": "/dev/null",
    "the run": "run",
    "below a bundle": "bundle/more",
    "below a bundle by a link": "into",
}
NO_FILE = [word for word in NOWHERE.values() if word not in ("bundle/..", "file")]


def refused(difftool: Command, place: Path, *line: object) -> None:
    """Demand that nothing changes, and that stderr is an error and a hint; training says more."""
    before = tree(place)
    done = difftool(*line)
    assert tree(place) == before
    assert done.code in (2, 5), done
    said = [text.split()[0] for text in done.err.splitlines() if not text.startswith("training ")]
    assert said == ["error:", "hint:"], done.err


@pytest.mark.parametrize("out", NOWHERE.values(), ids=NOWHERE)
@pytest.mark.parametrize("command", ["export", "quantize", "web", "import"])
def test_a_folder_that_cannot_be(command: str, out: str, place: Path, difftool: Command) -> None:
    lines = {
        "export": ["export", "run", "--out", out],
        "quantize": ["quantize", "bundle", "--out", out, *FEW],
        "web": web("bundle", out),
        "import": ["import", "run", "--out", out],
    }
    refused(difftool, place, *lines[command], "--force")


@pytest.mark.parametrize("out", ["bundle", "bundle/more", "file"])
def test_a_training_that_cannot_be(
    out: str, place: Path, difftool: Command, toy_recipe: str
) -> None:
    (place / "recipe.toml").write_text(toy_recipe)
    refused(difftool, place, "train", "ncsn", "--config", "recipe.toml", "--out", out)


@pytest.mark.parametrize("out", NO_FILE)
def test_a_file_that_cannot_be(out: str, place: Path, difftool: Command) -> None:
    refused(difftool, place, "program", "bundle", "--out", out, "--force")


def test_the_input_may_be_the_output_of_its_own_kind(difftool: Command, place: Path) -> None:
    assert difftool("export", "run", "--out", "run", "--force").code == 2
    assert difftool(*web("bundle", "bundle", "--force")).code == 2
    assert difftool("quantize", "bundle", "--out", "bundle", "--force", *FEW).code == 0
    assert "step.int8.onnx" in read_bundle(place / "bundle").manifest.files
