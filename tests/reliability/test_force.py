"""K5: --force replaces the files that an earlier output lists, in a folder that holds no others."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from difftool import files
from difftool.bundle import read_bundle
from difftool.checkpoint import read_config
from difftool.cli import main
from difftool.compile.sampler_onnx.site import RUNTIME
from tests.oracles.plain_openai import Shape
from tests.reliability.criteria import Cases

LINES = {
    "import": "import weights.pt --out {out} --force --set image_size=8 --set num_heads=1 "
    "--set diffusion_steps=1000 --set noise_schedule=linear",
    "export": "export run --out {out} --force",
    "quantize": "quantize bundle --out {out} --force --sampler ddim --steps 2",
    "web": "web bundle --runtime dist --out {out} --force",
}
SOMEONES = Shape(widths=(32,), attention=(), updown=False, outputs=3)


def a_thesis(out: Path) -> None:
    (out / "thesis.tex").write_text("years of work")


def a_repository(out: Path) -> None:
    (out / ".git" / "objects").mkdir(parents=True)
    (out / ".git" / "objects" / "pack").write_bytes(b"history")


def a_run(out: Path) -> None:
    (out / "checkpoints" / "step-000000001").mkdir(parents=True)
    (out / "checkpoints" / "step-000000001" / "model.safetensors").write_bytes(b"weights")


def an_empty_folder(out: Path) -> None:
    (out / "data").mkdir()


def a_hidden_file(out: Path) -> None:
    (out / ".env").write_text("key")


def a_link(out: Path) -> None:
    (out / "data").symlink_to("../elsewhere")


def a_pipe(out: Path) -> None:
    os.mkfifo(out / "pipe")


def a_folder_that_is_listed(out: Path) -> None:
    """A name of ours, but a folder, with something in it."""
    name = next(path for path in sorted(out.rglob("*")) if path.suffix in (".onnx", ".safetensors"))
    name.unlink()
    name.mkdir()
    (name / "letter").write_text("dear")


def a_link_that_is_listed(out: Path) -> None:
    name = next(path for path in sorted(out.rglob("*")) if path.suffix in (".onnx", ".safetensors"))
    name.rename(out.parent / "elsewhere")
    name.symlink_to(out.parent / "elsewhere")


def a_file_in_a_folder_of_ours(out: Path) -> None:
    inside = next((path for path in sorted(out.iterdir()) if path.is_dir()), out)
    (inside / "drawing.png").write_bytes(b"picture")


FOREIGN: tuple[Callable[[Path], None], ...] = (
    a_thesis,
    a_repository,
    a_run,
    an_empty_folder,
    a_hidden_file,
    a_link,
    a_pipe,
    a_folder_that_is_listed,
    a_link_that_is_listed,
    a_file_in_a_folder_of_ours,
)


def a_project(out: Path) -> None:
    """A folder of somebody's, whose configuration has the words of ours."""
    a_thesis(out)
    (out / "config.json").write_text('{"format": 1, "spec": {}}')
    (out / "bundle.json").write_text('{"format": 1, "files": {}}')
    (out / "model").mkdir()
    (out / "model" / "model.json").write_text('{"title": "mine"}')


def a_configuration(out: Path) -> None:
    (out / "config.json").write_text('{"format": 1, "spec": {}}')
    (out / "model.safetensors").write_bytes(b"years of training")


def a_training(out: Path) -> None:
    a_run(out)
    (out / "config.toml").write_text("")


def nothing(out: Path) -> None:
    """An empty folder."""


SOMEONES_OWN = (a_project, a_configuration, a_training, nothing)


@dataclass(frozen=True)
class Case:
    """A command that is to replace a folder in which something else is, or which is not ours."""

    command: str
    foreign: Callable[[Path], None]
    bare: bool = False

    def __repr__(self) -> str:
        return f"{self.command} onto {self.foreign.__name__}{' alone' if self.bare else ''}"


def every_case() -> Iterator[Case]:
    for command in LINES:
        yield from (Case(command, foreign) for foreign in FOREIGN)
        yield from (Case(command, foreign, bare=True) for foreign in SOMEONES_OWN)


@pytest.fixture(scope="module")
def inputs(
    points_checkpoint: Path,
    tiny_bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with what the commands read, and in `old` what each of them has written before."""
    place = tmp_path_factory.mktemp("force") / "place"
    shutil.copytree(tiny_bundle, place / "bundle")
    shutil.copytree(points_checkpoint, place / "run")
    for command in ("export", "quantize"):  # any bundle will do
        shutil.copytree(tiny_bundle, place / "old" / command)
    torch.save(SOMEONES.random_state(), place / "weights.pt")
    (place / "dist").mkdir()
    for name in RUNTIME:
        (place / "dist" / name).write_bytes(b"")
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
    """Checks that a command refuses in one line and a hint, and that all stays as it was."""

    def check(case: Case) -> None:
        out = place / "out"
        if case.bare:
            out.mkdir()
        else:
            shutil.copytree(place / "old" / case.command, out)
        case.foreign(out)
        before = listing(place)
        capsys.readouterr()
        code = main(LINES[case.command].format(out="out").split())
        printed = capsys.readouterr().err
        after = listing(place)
        shutil.rmtree(out)
        assert after == before, f"gone: {sorted(before.keys() - after.keys())}"
        assert code == 2, f"exit code {code}: {printed}"
        assert [line.split()[0] for line in printed.splitlines()] == ["error:", "hint:"], printed

    return check


def listing(folder: Path) -> dict[str, object]:
    """All below a folder: files with their content, links with their aim, and other things."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = path.readlink()
        else:
            found[str(path)] = path.read_bytes() if path.is_file() else path.stat().st_mode
    return found


@pytest.mark.criterion("K5")
def test_what_is_not_listed_is_never_removed(
    place: Path, cases: Cases, capsys: pytest.CaptureFixture[str]
) -> None:
    cases.run(refused(place, capsys), every_case())


@pytest.mark.seeded("K5")
def test_a_folder_that_is_removed_with_all_that_is_in_it_is_seen(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_all(monkeypatch)
    for foreign in (a_thesis, a_repository, a_run):
        with pytest.raises(AssertionError, match=r"gone: .*place/out/"):
            refused(place, capsys)(Case("import", foreign))


def remove_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect: what is replaced is deleted as a whole, whatever is in it."""
    monkeypatch.setattr(files, "require_owned", lambda path, listing: None)
    monkeypatch.setattr(files, "remove_owned", lambda path, names: shutil.rmtree(path))


@pytest.mark.criterion("K5")
@pytest.mark.parametrize("command", LINES)
def test_an_output_of_before_gives_way_as_a_whole(command: str, place: Path) -> None:
    """Also one in which a listed file is missing, or is another."""
    out = shutil.copytree(place / "old" / command, place / "out")
    for name in sorted(path for path in out.rglob("*") if path.suffix in (".onnx", ".safetensors")):
        name.unlink()
    assert main(LINES[command].format(out="out").split()) == 0
    assert sorted(path.name for path in place.iterdir()) == sorted(
        ["bundle", "dist", "old", "out", "run", "weights.pt"]
    )
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    if command == "import":
        assert names == {"config.json", *read_config(out)["files"]}
    elif command == "web":
        assert names == {*json.loads((out / "model" / "model.json").read_text())["files"]}
    else:
        assert read_bundle(out)


def test_the_page_lists_its_files(place: Path) -> None:
    site = place / "old" / "web"
    listed = json.loads((site / "model" / "model.json").read_text())["files"]
    assert sorted(listed) == sorted(
        path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()
    )


def test_what_else_is_there_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shutil.copytree(place / "old" / "export", place / "out")
    a_thesis(out)
    a_repository(out)
    assert main(LINES["export"].format(out="out").split()) == 2
    assert capsys.readouterr().err.startswith("error: out also holds .git and thesis.tex, ")
