"""Commands that are interrupted or short of disk leave the finished result, or nothing new."""

import random
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from difftool.bundle import MANIFEST, read_bundle
from difftool.train.config import parse, to_toml
from tests.cli.conftest import tree
from tests.reliability import commands, saves
from tests.reliability.commands import Ended, Trouble

# By what they write, which stands there before; eval writes nothing.
WRITING = {
    "points.bundle": "export points --out points.bundle --force",
    "images.bundle": "quantize images.bundle --force",
    "sampler.onnx": "compile images.bundle --portable --out sampler.onnx --force",
    "samples.png": "sample images.bundle --out samples.png --force",
    "samples.npz": "sample images.bundle --out samples.npz --force",
    "program.json": "program images.bundle --out program.json --force",
    "schedule.png": "plot schedule images.bundle --out schedule.png --force",
    "errors.png": "verify images.bundle images --picture errors.png --force",
}
EVAL = "eval --samples points.npz --against gaussians"
TRAIN = "train ncsn --config recipe.toml --out run"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS = 3.0  # within which a signal comes; after that most commands have ended
SOME, MANY = 1, 12  # signals of each kind for each command, in the short tier and in full


@pytest.fixture
def place(
    tmp_path: Path,
    tiny_bundle: Path,
    tiny_checkpoint: Path,
    points_checkpoint: Path,
) -> Path:
    """A folder with models, and something at every place where something is to be written."""
    place = tmp_path / "place"
    shutil.copytree(tiny_bundle, place / "images.bundle")
    shutil.copytree(tiny_bundle, place / "points.bundle")  # any bundle may be replaced
    shutil.copytree(tiny_checkpoint, place / "images")
    shutil.copytree(points_checkpoint, place / "points")
    (place / "recipe.toml").write_text(to_toml(parse(saves.SMALL["ncsn"])))
    np.savez(place / "points.npz", samples=np.random.default_rng(0).normal(size=(300, 2)))
    for name in WRITING:
        if not (place / name).exists():
            (place / name).write_text("old")
    return place


def troubles(line: str, count: int) -> Iterable[Trouble]:
    """Signals at some time and at some file operation, of both kinds in turn."""
    chance = random.Random(line)
    for index in range(count):
        first, second = SIGNALS if index % 2 else SIGNALS[::-1]
        yield Trouble(number=first, seconds=chance.uniform(0, SECONDS))
        yield Trouble(number=second, at=chance.randint(1, 10))


def assert_stopped_whole(
    ended: Ended, place: Path, kept: Path, line: str, result: str | None = None
) -> None:
    """It was stopped and nothing has changed, or the result is whole, and nothing else is new."""
    assert ended.code == 0 or (ended.code, ended.err) == (130, "error: interrupted\n"), ended
    before, after = inside(kept), inside(place)
    changed = [name for name in before | after if before.get(name) != after.get(name)]
    outside = [name for name in changed if name.partition("/")[0] != result]
    assert not outside, f"{ended} has changed {outside}"
    if result is not None and changed:
        assert_whole(place, kept, line, result)
    else:
        assert result is None or ended.code != 0


def assert_whole(place: Path, kept: Path, line: str, result: str) -> None:
    """What an interrupted command has finished is what an undisturbed one makes."""
    if (place / result).is_dir():
        bundle = read_bundle(place / result)
        assert set(tree(place / result)) == {
            str(place / result / name) for name in (MANIFEST, *bundle.manifest.files)
        }
        for name in bundle.manifest.files:
            bundle.file(name)
        return
    undisturbed = shutil.copytree(kept, place.parent / "undisturbed")
    assert commands.run(line, undisturbed).code == 0
    assert (place / result).read_bytes() == (undisturbed / result).read_bytes()
    shutil.rmtree(undisturbed)


def inside(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, by its path from there."""
    return {str(Path(name).relative_to(folder)): data for name, data in tree(folder).items()}


@pytest.mark.parametrize("result", WRITING)
def test_an_interrupted_command(result: str, place: Path, nightly: bool) -> None:
    line = WRITING[result]
    kept = shutil.copytree(place, place.parent / "kept")
    for trouble in troubles(line, MANY if nightly else SOME):
        assert_stopped_whole(commands.run(line, place, trouble), place, kept, line, result)
        shutil.rmtree(place)
        shutil.copytree(kept, place)


def test_an_interrupted_evaluation(place: Path, nightly: bool) -> None:
    kept = shutil.copytree(place, place.parent / "kept")
    for trouble in troubles(EVAL, MANY if nightly else SOME):
        assert_stopped_whole(commands.run(EVAL, place, trouble), place, kept, EVAL)


def test_what_is_half_done_is_seen(place: Path) -> None:
    """The check above on a folder in which something was left, or is not whole."""
    kept = shutil.copytree(place, place.parent / "kept")
    line, stopped = WRITING["program.json"], Ended(130, "", "error: interrupted\n")
    assert_stopped_whole(stopped, place, kept, line, "program.json")
    for name in (".program.json.0a1b", "program.json", "points.bundle/step.onnx"):
        path = place / name
        old = path.read_bytes() if path.exists() else None
        path.write_bytes(b"half")
        with pytest.raises(AssertionError):
            assert_stopped_whole(stopped, place, kept, line, "program.json")
        path.unlink()
        if old is not None:
            path.write_bytes(old)


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_training_goes_on_to_the_same_end(
    number: int, place: Path, nightly: bool
) -> None:
    whole = commands.run(TRAIN.replace("run", "whole"), place)
    assert whole.code == 0, whole
    chance = random.Random(number)
    for _ in range(MANY if nightly else 2):
        ended = commands.run(TRAIN, place, Trouble(number=number, at=chance.randint(1, 150)))
        assert ended.code in (0, 130), ended
        assert "Traceback" not in ended.err
        assert not [name for name in tree(place / "run") if "/." in name], "parts are left"
        assert commands.run(TRAIN, place).code == 0
        assert saves.saved(place / "run") == saves.saved(place / "whole")
        shutil.rmtree(place / "run")


@pytest.mark.parametrize("result", WRITING)
def test_a_command_whose_files_may_not_grow(result: str, place: Path, nightly: bool) -> None:
    """Real errors of a real file system, in what difftool writes and in what libraries write."""
    before = tree(place)
    for largest in (0, 50, 500) if nightly else (0,):
        ended = commands.run(WRITING[result], place, Trouble(largest=largest))
        lines = ended.err.splitlines()
        assert ended.code == 5, ended
        assert [line.split()[0] for line in lines] == ["error:", "hint:"], ended
        assert "File too large" in ended.err
        assert tree(place) == before
