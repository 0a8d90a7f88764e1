"""Where outputs go: folders and files that --out names in other ways, and what stays as it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from difftool.bundle import read_bundle
from difftool.compile.sampler_onnx.site import RUNTIME
from tests.cli.conftest import Command

FEW = ["--sampler", "ddim", "--steps", "2"]


@pytest.fixture
def place(tmp_path: Path, tiny_bundle: Path, points_checkpoint: Path) -> Path:
    """A folder with a bundle, a checkpoint's run and a page's runtime."""
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    shutil.copytree(points_checkpoint, tmp_path / "run")
    (tmp_path / "dist").mkdir()
    for name in RUNTIME:
        (tmp_path / "dist" / name).write_bytes(b"")
    return tmp_path


def web(model: str, out: object, *words: str) -> list[str]:
    return ["web", model, "--runtime", "dist", "--out", str(out), *FEW, *words]


@pytest.mark.parametrize("word", [".", "../bundle", "./", "../bundle/."])
def test_a_bundle_is_replaced_from_within(
    word: str, difftool: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "bundle")
    done = difftool("quantize", place / "bundle", "--out", word, "--force", *FEW, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["bundle"] == str(Path(word))
    assert "step.int8.onnx" in read_bundle(place / "bundle").manifest.files


def test_a_page_is_replaced_from_within(
    difftool: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert difftool(*web("bundle", "site")).code == 0
    monkeypatch.chdir(place / "site")
    done = difftool(*web("../bundle", ".", "--force", "--runtime", "../dist"))
    assert (done.code, done.err) == (0, "")
    assert (place / "site" / "index.html").is_file()


def test_an_export_from_within_is_reported(
    difftool: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def to_the_root(place: Path) -> str:
    return "/"


def to_the_folder_above(place: Path) -> str:
    return "bundle/.."


def to_a_file(place: Path) -> str:
    (place / "file").write_text("dear")
    return "file"


def to_below_a_file(place: Path) -> str:
    (place / "file").write_text("dear")
    return "file/below"


def to_a_link_that_goes_round(place: Path) -> str:
    (place / "round").symlink_to("round")
    return "round"


def to_a_device(place: Path) -> str:
    return "/dev/null"


def to_the_run(place: Path) -> str:
    return "run"


def to_the_bundle(place: Path) -> str:
    return "bundle"


def to_below_a_bundle(place: Path) -> str:
    return "bundle/more"


def to_below_a_bundle_by_a_link(place: Path) -> str:
    (place / "link").symlink_to("bundle/more")
    return "link"


NOWHERE = (
    to_the_root,
    to_the_folder_above,
    to_a_file,
    to_below_a_file,
    to_a_link_that_goes_round,
    to_a_device,
    to_the_run,
    to_below_a_bundle,
    to_below_a_bundle_by_a_link,
)


@pytest.mark.parametrize("words", NOWHERE)
@pytest.mark.parametrize("command", ["export", "quantize", "web", "import"])
def test_a_folder_that_cannot_be_is_refused(
    command: str,
    words: Callable[[Path], str],
    place: Path,
    difftool: Command,
) -> None:
    out = words(place)
    lines = {
        "export": ["export", "run", "--out", out],
        "quantize": ["quantize", "bundle", "--out", out, *FEW],
        "web": web("bundle", out),
        "import": ["import", "run", "--out", out],
    }
    before = everything(place)
    done = difftool(*lines[command], "--force")
    assert everything(place) == before
    assert done.code in (2, 5), done
    assert [line.split()[0] for line in done.err.splitlines()] == ["error:", "hint:"], done.err


@pytest.mark.parametrize("words", [to_the_bundle, to_below_a_bundle, to_a_file])
def test_a_training_is_refused_in_what_holds_nothing_else(
    words: Callable[[Path], str], place: Path, difftool: Command, toy_recipe: str
) -> None:
    out = words(place)
    (place / "recipe.toml").write_text(toy_recipe)
    before = everything(place)
    done = difftool("train", "ncsn", "--config", "recipe.toml", "--out", out)
    assert everything(place) == before
    assert done.code in (2, 5), done
    assert [line.split()[0] for line in done.err.splitlines()][-2:] == ["error:", "hint:"]


@pytest.mark.parametrize("words", [*NOWHERE[:1], *NOWHERE[3:]])
def test_a_file_that_cannot_be_is_refused(
    words: Callable[[Path], str], place: Path, difftool: Command
) -> None:
    out = words(place)
    before = everything(place)
    done = difftool("program", "bundle", "--out", out, "--force")
    assert everything(place) == before
    assert done.code in (2, 5), done
    assert [line.split()[0] for line in done.err.splitlines()] == ["error:", "hint:"], done.err


def test_the_input_may_be_the_output_of_its_own_kind(difftool: Command, place: Path) -> None:
    assert difftool("export", "run", "--out", "run", "--force").code == 2
    assert difftool(*web("bundle", "bundle", "--force")).code == 2
    assert difftool("quantize", "bundle", "--out", "bundle", "--force", *FEW).code == 0
    assert "step.int8.onnx" in read_bundle(place / "bundle").manifest.files


def everything(folder: Path) -> dict[str, object]:
    """All below a folder: files with their content, links with their aim, and folders."""
    return {
        str(path): path.readlink()
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }
