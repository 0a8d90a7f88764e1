"""K2: a training that is killed at any call, again and again, ends as if undisturbed.

The runs are of 8x8 digits and take about a second. The DDPM has dropout and flips, the NCSN
dequantization, so that all that is drawn at random counts.
"""

import json
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any, Final

import pytest

from difftool import checkpoint, data
from difftool.train.config import TrainConfig, parse
from difftool.train.state import TrainState
from difftool.train.trainer import train
from tests.recipes import IMAGES, POINTS
from tests.reliability import forked
from tests.reliability.commands import Defect
from tests.reliability.criteria import Cases
from tests.reliability.moments import Calls

KILLS = {False: 3, True: 150}  # of each method, in the short tier and in full
STEPS: Final = 12
MORE: Final = 8  # steps after the end, whose losses are compared
RECIPES: Final = {
    "ddpm": IMAGES,
    "ncsn": POINTS
    | {
        "data": {"source": "digits", "dequantize": True},
        "optimizer": {"lr": 1e-3},
        "network": {
            **IMAGES["network"],
            "arguments": {**IMAGES["network"]["arguments"], "dropout": 0.0},
            "parameterization": "scaled_score",
        },
    },
}


def make_config(method: str, steps: int = STEPS) -> TrainConfig:
    run = {**IMAGES["run"], "steps": steps, "checkpoint_every": 2, "keep": 1}
    return parse(RECIPES[method] | {"run": run})


def train_tiny(method: str, run: Path) -> None:
    """Train to the end, from wherever the run is."""
    train(make_config(method), run, progress=False)


def fingerprint(method: str, run: Path, defect: Defect | None = None) -> dict[str, Any]:
    """Train to the end, and then `MORE` steps: digests of all that was saved, and their losses."""
    if defect is not None:
        defect()
    train_tiny(method, run)
    saved = checkpoint.read_config(checkpoint.find_checkpoint(run))
    train(make_config(method, STEPS + MORE), run, progress=False)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "step": saved["step"],  # the data's position is step * batch
        "files": {name: entry["sha256"] for name, entry in saved["files"].items()},
        "losses": [(record["step"], record["loss"].hex()) for record in records],
    }


def train_counted(method: str, run: Path) -> int:
    """Return how many calls an undisturbed run makes."""
    with Calls() as calls:
        train_tiny(method, run)
    return calls.count


def train_until(call: int, method: str, run: Path) -> None:
    """Kill a run at so many calls, if it makes as many."""
    with Calls({call: signal.SIGKILL}, lambda number: os.kill(os.getpid(), number)):
        train_tiny(method, run)


class Killings:
    """A run that is killed and goes on, and is killed again, and what an undisturbed one gives."""

    def __init__(self, method: str, folder: Path, defect: Defect | None = None) -> None:
        self.method, self.folder, self.defect = method, folder, defect
        self.whole = forked.call(fingerprint, method, folder / "whole")
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
        resumed = forked.call(fingerprint, self.method, copy, self.defect)
        shutil.rmtree(copy)
        for part, value in self.whole.items():
            assert resumed[part] == value, f"{part} is not that of an undisturbed run"

    def _killed_at(self, call: int) -> bool:
        process = forked.start(train_until, call, self.method, self.run)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), f"it ended with {process.exitcode}"
        return process.exitcode != 0


@pytest.mark.criterion("K2")
@pytest.mark.parametrize("method", RECIPES)
def test_killed_at_any_call(method: str, nightly: bool, cases: Cases, tmp_path: Path) -> None:
    """One run is killed at random calls until it ends, and then another."""
    cases.run(Killings(method, tmp_path).kill, range(KILLS[nightly]))


def drop_the_data_position() -> None:
    """Let a run that goes on begin with the data anew."""
    restore, batch_indices = TrainState.restore, data.batch_indices
    begin = 0

    def restoring(state: TrainState, folder: Path) -> None:
        nonlocal begin
        restore(state, folder)
        begin = state.step

    def from_the_first(seed: int, step: int, *arguments: Any) -> data.order.Indices:
        return batch_indices(seed, step - begin, *arguments)

    TrainState.restore = restoring  # type: ignore[method-assign]
    data.batch_indices = from_the_first


@pytest.mark.seeded("K2")
def test_a_lost_data_position_is_seen(cases: Cases, tmp_path: Path) -> None:
    killings = Killings("ddpm", tmp_path, drop_the_data_position)
    with pytest.raises(AssertionError, match="is not that of an undisturbed run"):
        cases.run(killings.kill, range(3))  # a kill may come before there is a checkpoint
