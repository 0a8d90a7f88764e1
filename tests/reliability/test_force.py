"""K5: --force replaces the files that an earlier output lists, in a folder that holds no others."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from difftool import files
from difftool.bundle import read_bundle
from difftool.checkpoint import read_config
from difftool.cli import main
from tests.places import IMPORT, furnish
from tests.reliability.criteria import Cases

LINES = {
    "import": f"{IMPORT} --out {{out}} --force",
    "export": "export run --out {out} --force",
    "quantize": "quantize bundle --out {out} --force --sampler ddim --steps 2",
    "web": "web bundle --runtime dist --out {out} --force",
}


def put(out: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(content)


def listed(out: Path) -> list[Path]:
    return [path for path in sorted(out.rglob("*")) if path.suffix in (".onnx", ".safetensors")]


def make_a_folder_of_a_file(out: Path) -> None:
    """Make a file of ours a folder with something in it."""
    name = listed(out)[0]
    name.unlink()
    put(name, {"letter": "dear"})


def make_a_link_of_a_file(out: Path) -> None:
    name = listed(out)[0]
    name.rename(out.parent / "elsewhere")
    name.symlink_to(out.parent / "elsewhere")


def put_a_file_into_a_folder_of_ours(out: Path) -> None:
    inside = next((path for path in sorted(out.iterdir()) if path.is_dir()), out)
    put(inside, {"drawing.png": "picture"})


THESIS = {"thesis.tex": "years of work"}
REPOSITORY = {".git/objects/pack": "history"}
RUN = {"checkpoints/step-000000001/model.safetensors": "weights"}
SPEC, FILES = '{"format": 1, "spec": {}}', '{"format": 1, "files": {}}'
# What is done to an output's folder.
FOREIGN: dict[str, Callable[[Path], object]] = {
    "a thesis": lambda out: put(out, THESIS),
    "a repository": lambda out: put(out, REPOSITORY),
    "a run": lambda out: put(out, RUN),
    "a hidden file": lambda out: put(out, {".env": "key"}),
    "an empty folder": lambda out: (out / "data").mkdir(),
    "a link": lambda out: (out / "data").symlink_to("../elsewhere"),
    "a pipe": lambda out: os.mkfifo(out / "pipe"),
    "a folder that is listed": make_a_folder_of_a_file,
    "a link that is listed": make_a_link_of_a_file,
    "a file in a folder of ours": put_a_file_into_a_folder_of_ours,
}
# Folders that are somebody's own; the first one's configuration has the words of ours.
SOMEONES_OWN = {
    "a project": {
        **THESIS,
        "config.json": SPEC,
        "bundle.json": FILES,
        "model/model.json": '{"title": "mine"}',
    },
    "a configuration": {"config.json": SPEC, "model.safetensors": "years of training"},
    "a training": {**RUN, "config.toml": ""},
    "nothing": {},
}


@dataclass(frozen=True)
class Case:
    """A command that is to replace a folder in which something else is, or which is not ours."""

    command: str
    foreign: str

    def arrange(self, place: Path) -> None:
        """Make the folder `out`."""
        if self.foreign in SOMEONES_OWN:
            (place / "out").mkdir()
            put(place / "out", SOMEONES_OWN[self.foreign])
            return
        shutil.copytree(place / "old" / self.command, place / "out")
        FOREIGN[self.foreign](place / "out")


@pytest.fixture(scope="module")
def inputs(
    points_checkpoint: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with what the commands read, and in `old` what each of them has written before."""
    bundles = ("bundle", "old/export", "old/quantize")  # any bundle will do
    copies = {"run": points_checkpoint, **dict.fromkeys(bundles, tiny_bundle)}
    place = furnish(tmp_path_factory.mktemp("force") / "place", copies)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for command in ("import", "web"):
            assert main(LINES[command].format(out=f"old/{command}").split()) == 0
    return place


@pytest.fixture
def place(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = shutil.copytree(inputs, tmp_path / "place")
    monkeypatch.chdir(place)
    return place


def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Case], None]:
    """Check that a command refuses in one line and a hint, and that all stays as it was."""

    def check(case: Case) -> None:
        case.arrange(place)
        before = listing(place)
        capsys.readouterr()
        code = main(LINES[case.command].format(out="out").split())
        printed = capsys.readouterr().err
        after = listing(place)
        shutil.rmtree(place / "out")
        assert after == before, f"gone: {sorted(before.keys() - after.keys())}"
        assert code == 2, f"exit code {code}: {printed}"
        assert [line.split()[0] for line in printed.splitlines()] == ["error:", "hint:"], printed

    return check


def listing(folder: Path) -> dict[str, object]:
    """Return all below a folder: files with their content, links with their aim, and the rest."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = path.readlink()
        else:
            found[str(path)] = path.read_bytes() if path.is_file() else path.stat().st_mode
    return found


@pytest.mark.criterion("K5")
def test_other_files_stay(place: Path, cases: Cases, capsys: pytest.CaptureFixture[str]) -> None:
    every = [Case(*pair) for pair in product(LINES, (*FOREIGN, *SOMEONES_OWN))]
    cases.run(refused(place, capsys), every)


@pytest.mark.seeded("K5")
def test_a_folder_that_is_removed_with_all_that_is_in_it_is_seen(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "require_owned", lambda path, listing: None)
    monkeypatch.setattr(files, "remove_owned", lambda path, names: shutil.rmtree(path))
    for foreign in ("a thesis", "a repository", "a run"):
        with pytest.raises(AssertionError, match=r"gone: .*place/out/"):
            refused(place, capsys)(Case("import", foreign))


@pytest.mark.criterion("K5")
@pytest.mark.parametrize("command", LINES)
def test_an_output_of_before_gives_way_as_a_whole(command: str, place: Path) -> None:
    """Also one in which a listed file is missing, or is another."""
    out = shutil.copytree(place / "old" / command, place / "out")
    for name in listed(out):
        name.unlink()
    assert main(LINES[command].format(out="out").split()) == 0
    found = {path.name for path in place.iterdir()}
    assert found == {"bundle", "dist", "old", "out", "run", "weights.pt"}
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    if command == "import":
        assert names == {"config.json", *read_config(out)["files"]}
    elif command == "web":
        assert names == {*json.loads((out / "model" / "model.json").read_text())["files"]}
    else:
        assert read_bundle(out)


def test_the_page_lists_its_files(place: Path) -> None:
    site = place / "old" / "web"
    named = json.loads((site / "model" / "model.json").read_text())["files"]
    found = [path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()]
    assert sorted(named) == sorted(found)


def test_what_else_is_there_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shutil.copytree(place / "old" / "export", place / "out")
    put(out, THESIS | REPOSITORY)
    assert main(LINES["export"].format(out="out").split()) == 2
    assert capsys.readouterr().err.startswith("error: out also holds .git and thesis.tex, ")
