"""K1, K3 and K4: a save that is killed, or is without power or a disk, loses nothing and says so.

The short tier has one kind of save for each method, fewer chances of a loss of power, and one errno
for each operation.
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from difftool import checkpoint, files
from difftool.errors import ResourceError
from difftool.owned import Listing
from difftool.train.config import parse, to_toml
from difftool.train.state import TrainState
from tests.cli.conftest import tree
from tests.reliability import commands, forked, saves
from tests.reliability.commands import Ended, Trouble
from tests.reliability.criteria import Cases
from tests.reliability.saves import nothing_is_lost, of_each

DRAWS = {False: 2, True: 40}  # losses at random after each operation, in the short tier and in full
ERRNOS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO)
TRAIN = "train ncsn --out run --config"


@pytest.mark.criterion("K1")
def test_killed_at_any_file_operation(cases: Cases, nightly: bool, tmp_path: Path) -> None:
    cases.run(nothing_is_lost, of_each(saves.kills, nightly, tmp_path))


def write_in_place() -> None:
    """Write checkpoints over what is there, without a temporary name."""

    @contextlib.contextmanager
    def in_place(path: Path, *, replace: Listing | None = None) -> Iterator[Path]:
        path.mkdir(parents=True, exist_ok=True)
        for old in path.iterdir():
            old.unlink()
        yield path

    checkpoint.atomic_directory = in_place


@pytest.mark.seeded("K1")
def test_writing_in_place_is_seen(cases: Cases, tmp_path: Path) -> None:
    found = forked.each(saves.kills, "ddpm", "again", tmp_path / "run", write_in_place)
    with pytest.raises(AssertionError, match="none loads"):
        cases.run(nothing_is_lost, found)


def test_no_file_operation_escapes(tmp_path: Path) -> None:
    assert forked.call(saves.unseen_in_a_save, "ddpm", tmp_path) == []


@pytest.mark.criterion("K3")
def test_power_lost_at_any_file_operation(cases: Cases, nightly: bool, tmp_path: Path) -> None:
    cases.run(nothing_is_lost, of_each(saves.power_losses, nightly, tmp_path, DRAWS[nightly]))


def skip_the_folders_fsync() -> None:
    """Do not make names last."""
    files._sync_directory = lambda path: None


@pytest.mark.seeded("K3")
@pytest.mark.parametrize("kind", saves.KINDS)
def test_a_folder_that_is_not_synced_is_seen(kind: str, cases: Cases, tmp_path: Path) -> None:
    arguments = ("ncsn", kind, tmp_path / "disk", DRAWS[False], skip_the_folders_fsync)
    with pytest.raises(AssertionError, match="none loads"):
        cases.run(nothing_is_lost, forked.each(saves.power_losses, *arguments))


@pytest.mark.criterion("K4")
def test_an_error_at_any_file_operation(cases: Cases, nightly: bool, tmp_path: Path) -> None:
    every = 1 if nightly else len(ERRNOS)
    cases.run(nothing_is_lost, of_each(saves.errors, nightly, tmp_path, ERRNOS, every))


def swallow_errors() -> None:
    """Tell nobody that a disk is full."""
    save = TrainState.save

    def silent(state: TrainState, run: Path) -> Path:
        with contextlib.suppress(ResourceError):
            return save(state, run)
        return run

    TrainState.save = silent  # type: ignore[method-assign]


@pytest.mark.seeded("K4")
def test_a_swallowed_error_is_seen(cases: Cases, tmp_path: Path) -> None:
    arguments = ("ncsn", "next", tmp_path / "run", ERRNOS, 1, swallow_errors)
    with pytest.raises(AssertionError, match="nobody is told"):
        cases.run(nothing_is_lost, forked.each(saves.errors, *arguments))


@pytest.fixture
def place() -> Iterator[Path]:
    """A run with a checkpoint, and the recipe that makes it longer, in reach of anybody."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        recipe = saves.SMALL["ncsn"]
        # Weights that take more than the configuration, which has comments.
        wide = {**recipe["network"], "arguments": {**recipe["network"]["arguments"], "hidden": 40}}
        recipe = recipe | {"network": wide}
        for name, steps in (("recipe", 4), ("longer", 6)):
            config = parse(recipe | {"run": {**recipe["run"], "steps": steps}})
            (place / f"{name}.toml").write_text(to_toml(config))
        done = commands.run(f"{TRAIN} recipe.toml", place)
        assert done.code == 0, done.err
        yield place


def require_refusal(done: Ended, reason: int) -> None:
    """AssertionError unless a training ended because of a file system's error, and said so."""
    assert done.code == 5, done
    lines = [line.partition(":") for line in done.err.splitlines()]
    first, error, hint = lines[0], *lines[-2:]
    assert (first[0], error[0], hint[0]) == ("training longer into run", "error", "hint")
    assert os.strerror(reason) in error[2]


@pytest.mark.criterion("K4")
@pytest.mark.parametrize("largest", [0, 300, 8000])
def test_a_training_whose_files_may_not_grow(place: Path, largest: int) -> None:
    before = tree(place / "run" / "checkpoints")
    done = commands.run(f"{TRAIN} longer.toml", place, Trouble(largest=largest))
    require_refusal(done, errno.EFBIG)
    assert tree(place / "run" / "checkpoints") == before


@pytest.mark.criterion("K4")
@pytest.mark.parametrize("part", ["run", "run/checkpoints"])
def test_a_training_in_a_folder_that_is_read_only(place: Path, part: str) -> None:
    if os.geteuid() == 0:
        for path in [place, *place.rglob("*")]:
            os.chown(path, commands.NOBODY, commands.NOBODY)
    (place / part).chmod(0o555)
    before = tree(place / "run" / "checkpoints")
    done = commands.run(f"{TRAIN} longer.toml", place, Trouble(privileged=False))
    require_refusal(done, errno.EACCES)
    assert tree(place / "run" / "checkpoints") == before
    (place / part).chmod(0o755)


@pytest.mark.seeded("K4")
def test_a_training_that_swallows_errors_is_seen(place: Path) -> None:
    done = commands.run(f"{TRAIN} longer.toml", place, Trouble(largest=8000, defect=swallow_errors))
    with pytest.raises(AssertionError):
        require_refusal(done, errno.EFBIG)
