"""Commands that are interrupted or short of disk leave the finished result, or nothing new."""

import importlib.util
import json
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difftool.checkpoint import find_checkpoint
from difftool.runtime.engine_cache import EngineCache
from difftool.train.config import parse, to_toml
from tests.cli.conftest import tree
from tests.places import IMPORT, furnish, inside
from tests.reliability import commands, saves
from tests.reliability.commands import Ended, Trouble, require_one_error

WRITING = {
    "import": f"{IMPORT} --out imported --force",
    "export": "export points --out points.bundle --force",
    "quantize": "quantize images.bundle --force",
    "portable": "compile images.bundle --portable --out sampler.onnx --force",
    "engine": "compile points.bundle --trt --gpu sm89 --profile 1,1,1 --out step.engine --force",
    "web": "web images.bundle --runtime dist --out site --force",
    "picture": "sample images.bundle --out samples.png --force",
    "arrays": "sample images.bundle --out samples.npz --force",
    "program": "program images.bundle --out program.json --force",
    "plot": "plot schedule images.bundle --out schedule.png --force",
    "verify": "verify images.bundle images --picture errors.png --force",
}
LINES = {**WRITING, "eval": "eval --samples points.npz --against gaussians"}
FILES = ("sampler.onnx", "step.engine", "samples.png", "samples.npz", "program.json")
FILES += ("schedule.png", "errors.png", "site/model/model.json")
TRAIN = "train ncsn --config recipe.toml --out run"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
MANY = 12  # signals of each kind for each command, in full


def installed(lines: dict[str, str]) -> list[Any]:
    """Return parameters of a test; those are skipped whose library is not installed."""
    absent = importlib.util.find_spec("tensorrt_rtx") is None
    skipped = pytest.mark.skipif(absent, reason="needs TensorRT for RTX")
    return [
        pytest.param(line, id=name, marks=skipped if "--trt" in line else ())
        for name, line in lines.items()
    ]


@pytest.fixture
def place(
    tmp_path: Path, tiny_bundle: Path, tiny_checkpoint: Path, points_checkpoint: Path
) -> Path:
    """A folder with models, and with something at every place that a command writes to."""
    copies = {
        "images.bundle": tiny_bundle,
        "points.bundle": tiny_bundle,  # any bundle may be replaced
        "images": tiny_checkpoint,
        "imported": find_checkpoint(tiny_checkpoint),
        "points": points_checkpoint,
    }
    place = furnish(tmp_path / "place", copies)
    for name in FILES:
        (place / name).parent.mkdir(exist_ok=True, parents=True)
        (place / name).write_text("old")
    page = {"files": [name.removeprefix("site/") for name in FILES if name.startswith("site/")]}
    (place / "site/model/model.json").write_text(json.dumps(page))
    (place / "recipe.toml").write_text(to_toml(parse(saves.SMALL["ncsn"])))
    np.savez(place / "points.npz", samples=np.random.default_rng(0).normal(size=(300, 2)))
    return place


def troubles(line: str, calls: int, nightly: bool) -> Iterator[Trouble]:
    """Yield signals at one of a command's `calls` and at some file operation, of both kinds.

    One signal alone, and one that another follows.
    """
    chance = random.Random(line)
    for index in range(MANY if nightly else 1):
        first, second = SIGNALS if index % 2 else SIGNALS[::-1]
        at, call, later = chance.randint(1, 10), chance.randint(1, calls), index % 4 + 1
        yield Trouble(calls={chance.randint(1, calls): first})
        one, two = (
            Trouble(operations={at: second}),
            Trouble(operations={at: first, at + later: second}),
        )
        if not nightly:
            yield chance.choice((one, two))
            return
        yield from (one, two)
        yield Trouble(calls={call: second, call + chance.choice((1, 10, 100, 10_000)): first})


def assert_stopped_whole(
    ended: Ended, place: dict[str, bytes], before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    """Demand that it left `before` and was stopped, or `after`, as an undisturbed run does."""
    assert ended.code == 0 or (ended.code, ended.err) == (130, "error: interrupted\n"), ended
    allowed = (after,) if ended.code == 0 else (before, after)
    changed = {name for name in before | place if before.get(name) != place.get(name)}
    assert place in allowed, f"{ended} has changed {changed}"


def found_in(folder: Path) -> dict[str, bytes]:
    """Return what is in a folder; of an engine its begin and size: the rest is new each time."""
    return {
        name: b"%s, %d bytes" % (data[:4], len(data)) if name.endswith(".engine") else data
        for name, data in inside(folder).items()
    }


def undisturbed(line: str, kept: Path) -> tuple[dict[str, bytes], int]:
    """Return what a command leaves in a folder like `kept`, and how many calls it makes."""
    folder = shutil.copytree(kept, kept.with_name("undisturbed"))
    ended = commands.run(line, folder, Trouble(counted=True))
    assert ended.code == 0, ended
    return found_in(folder), ended.calls


@pytest.mark.criterion("K6")
@pytest.mark.parametrize("line", installed(LINES))
def test_an_interrupted_command(line: str, place: Path, nightly: bool) -> None:
    kept = shutil.copytree(place, place.parent / "kept")
    before, (after, calls) = found_in(kept), undisturbed(line, kept)
    for trouble in troubles(line, calls, nightly):
        EngineCache().clear()
        assert_stopped_whole(commands.run(line, place, trouble), found_in(place), before, after)
        shutil.rmtree(place)
        shutil.copytree(kept, place)


def test_what_is_half_done_is_seen() -> None:
    """The check above on a folder in which something was left, or is not whole."""
    before, after = {"other": b"old", "result": b"old"}, {"other": b"old", "result": b"new"}
    stopped, done = Ended(130, "", "error: interrupted\n"), Ended(0, "", "")
    for ended, place in ((stopped, before), (stopped, after), (done, after)):
        assert_stopped_whole(ended, place, before, after)
    for ended, place in (
        (stopped, {**before, ".result.0a1b": b"half"}),
        (stopped, {**before, "result": b"half"}),
        (stopped, {**before, "other": b"half"}),
        (stopped, {"other": b"old"}),
        (done, before),
        (Ended(-1, "", ""), before),
        (Ended(130, "", "Traceback"), before),
    ):
        with pytest.raises(AssertionError):
            assert_stopped_whole(ended, place, before, after)


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_training_goes_on(number: int, place: Path, nightly: bool) -> None:
    whole = commands.run(TRAIN.replace("run", "whole"), place)
    assert whole.code == 0, whole
    chance = random.Random(number)
    for _ in range(MANY if nightly else 1):
        ended = commands.run(TRAIN, place, Trouble(operations={chance.randint(1, 150): number}))
        assert ended.code in (0, 130), ended
        assert "Traceback" not in ended.err
        assert not [name for name in tree(place / "run") if "/." in name], "parts are left"
        assert commands.run(TRAIN, place).code == 0
        assert saves.saved(place / "run") == saves.saved(place / "whole")
        shutil.rmtree(place / "run")


@pytest.mark.parametrize("line", installed(WRITING))
def test_a_command_whose_files_may_not_grow(line: str, place: Path, nightly: bool) -> None:
    """Real errors of a real file system, in what difftool writes and in what libraries write."""
    before = tree(place)
    for largest in (0, 50, 500) if nightly else (0,):
        ended = commands.run(line, place, Trouble(largest=largest))
        require_one_error(ended, (5,))
        assert "File too large" in ended.err
        assert "\nhint: " in ended.err
        assert tree(place) == before
