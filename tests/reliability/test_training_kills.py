"""K1 and K2: a training that is killed, at any file operation or any call, loses nothing."""

import itertools
import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from tests.reliability import forked, saves, tiny_runs
from tests.reliability.criteria import Cases
from tests.reliability.moments import Calls
from tests.reliability.training_defects import Defect, drop_the_data_position, write_in_place

METHODS = tuple(tiny_runs.CONFIGS)
KILLS, ALL_KILLS = 3, 150  # of each method, in the short tier and in full


@pytest.mark.criterion("K1")
def test_killed_at_any_file_operation_of_a_save(cases: Cases, tmp_path: Path) -> None:
    kinds = itertools.product(METHODS, saves.KINDS)
    found = (saves.kills(method, kind, tmp_path / f"{method}-{kind}") for method, kind in kinds)
    cases.run(saves.nothing_is_lost, itertools.chain.from_iterable(found))


@pytest.mark.seeded("K1")
def test_writing_in_place_is_seen(tmp_path: Path) -> None:
    found = saves.kills("ddpm", "again", tmp_path / "run", write_in_place)
    with pytest.raises(AssertionError, match="none loads"):
        Cases(lambda *_: None).run(saves.nothing_is_lost, found)


def test_no_file_operation_of_a_save_escapes(tmp_path: Path) -> None:
    assert forked.call(saves.unseen_in_a_save, "ddpm", tmp_path) == []


def train_counted(method: str, run: Path) -> int:
    """How many calls an undisturbed run makes."""
    with Calls() as calls:
        tiny_runs.train_tiny(method, run)
    return calls.count


def train_until(call: int, method: str, run: Path) -> None:
    """A run that is killed at so many calls, if it makes as many."""
    with Calls({call: signal.SIGKILL}, lambda number: os.kill(os.getpid(), number)):
        tiny_runs.train_tiny(method, run)


class Killings:
    """A run that is killed and goes on, and is killed again, and what an undisturbed one gives."""

    def __init__(self, method: str, folder: Path, defect: Defect | None = None) -> None:
        self.method, self.folder, self.defect = method, folder, defect
        self.whole = forked.call(tiny_runs.fingerprint, method, folder / "whole")
        self.calls = forked.call(train_counted, method, folder / "counted")
        self.run = folder / "killed"

    def kill(self, seed: int) -> None:
        """Kill the run somewhere; a copy, trained to the end, must be as if undisturbed."""
        chance = random.Random(f"{self.method} {seed}")
        while not self._killed_at(chance.randint(1, self.calls)):
            shutil.rmtree(self.run)  # it went on from a checkpoint and has ended: the next begins
        copy = self.folder / "copy"
        if self.run.exists():
            shutil.copytree(self.run, copy)
        resumed = forked.call(tiny_runs.fingerprint, self.method, copy, self.defect)
        shutil.rmtree(copy)
        for part, value in self.whole.items():
            assert resumed[part] == value, f"{part} is not that of an undisturbed run"

    def _killed_at(self, call: int) -> bool:
        process = forked.start(train_until, call, self.method, self.run)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), f"it ended with {process.exitcode}"
        return process.exitcode != 0


@pytest.mark.criterion("K2")
@pytest.mark.parametrize("method", METHODS)
def test_killed_at_any_call(method: str, nightly: bool, cases: Cases, tmp_path: Path) -> None:
    """One run is killed at random calls until it ends, and then another."""
    cases.run(Killings(method, tmp_path).kill, range(ALL_KILLS if nightly else KILLS))


@pytest.mark.seeded("K2")
def test_a_lost_data_position_is_seen(tmp_path: Path) -> None:
    killings = Killings("ddpm", tmp_path, drop_the_data_position)
    tiny = range(3)  # a kill may come before there is a checkpoint
    with pytest.raises(AssertionError, match="is not that of an undisturbed run"):
        Cases(lambda *_: None).run(killings.kill, tiny)
