"""K4: a disk that is full, or may not be written to, is named in one line, and takes nothing."""

import errno
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from difftool.train.config import parse, to_toml
from tests.cli.conftest import tree
from tests.reliability import commands, saves
from tests.reliability.commands import Trouble
from tests.reliability.criteria import Cases
from tests.reliability.training_defects import swallow_errors

ERRNOS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO)


@pytest.mark.criterion("K4")
def test_an_error_at_any_file_operation(cases: Cases, nightly: bool, tmp_path: Path) -> None:
    """In the short tier each operation fails in one of these ways, and in full in all of them."""
    every = 1 if nightly else len(ERRNOS)
    found = (
        saves.errors(method, kind, tmp_path / f"{method}-{kind}", ERRNOS, every)
        for method, kind in itertools.product(saves.SMALL, saves.KINDS)
    )
    cases.run(saves.nothing_is_lost, itertools.chain.from_iterable(found))


@pytest.mark.seeded("K4")
def test_a_swallowed_error_is_seen(tmp_path: Path) -> None:
    found = saves.errors("ncsn", "next", tmp_path / "run", ERRNOS, defect=swallow_errors)
    with pytest.raises(AssertionError, match="nobody is told"):
        Cases(lambda *_: None).run(saves.nothing_is_lost, found)


@pytest.fixture
def place() -> Iterator[Path]:
    """A run with a checkpoint, and the recipe that makes it longer, where anybody may look."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        for name, steps in (("recipe", 4), ("longer", 6)):
            config = {**saves.SMALL["ncsn"]}
            config = {**config, "run": {**config["run"], "steps": steps}}
            (place / f"{name}.toml").write_text(to_toml(parse(config)))
        done = commands.run(f"{TRAIN} recipe.toml", place)
        assert done.code == 0, done.err
        yield place


TRAIN = "train ncsn --out run --config"


@pytest.mark.criterion("K4")
@pytest.mark.parametrize("largest", [0, 300, 2000])
def test_a_training_whose_files_may_not_grow(place: Path, largest: int) -> None:
    before = checkpoints(place)
    done = commands.run(f"{TRAIN} longer.toml", place, Trouble(largest=largest))
    assert_refused(done, os.strerror(errno.EFBIG))
    assert checkpoints(place) == before


@pytest.mark.criterion("K4")
@pytest.mark.parametrize("part", ["run", "run/checkpoints"])
def test_a_training_in_a_folder_that_is_read_only(place: Path, part: str) -> None:
    if os.geteuid() == 0:
        for path in [place, *place.rglob("*")]:
            os.chown(path, commands.NOBODY, commands.NOBODY)
    (place / part).chmod(0o555)
    before = checkpoints(place)
    done = commands.run(f"{TRAIN} longer.toml", place, Trouble(privileged=False))
    assert_refused(done, os.strerror(errno.EACCES))
    assert checkpoints(place) == before
    (place / part).chmod(0o755)


@pytest.mark.seeded("K4")
def test_a_training_that_swallows_errors_is_seen(place: Path) -> None:
    done = commands.run(f"{TRAIN} longer.toml", place, Trouble(largest=2000, defect=swallow_errors))
    with pytest.raises(AssertionError):
        assert_refused(done, os.strerror(errno.EFBIG))


def checkpoints(place: Path) -> dict[str, bytes]:
    return tree(place / "run" / "checkpoints")


def assert_refused(done: commands.Ended, reason: str) -> None:
    lines = done.err.splitlines()
    assert done.code == 5, done
    begins = [line.partition(":")[0] for line in lines]
    assert begins == ["training longer into run", "error", "hint"]
    assert reason in lines[1]
