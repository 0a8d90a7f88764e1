"""Where records go: TensorBoard, and Weights & Biases by a module that stands for it."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from difftool.errors import MissingDependencyError, ResourceError
from difftool.train.config import TrainConfig, apply_overrides
from difftool.train.trackers import ID
from tests.train.conftest import run

# It writes down how it is called.
WANDB = """
import json, os

class Run:
    def _say(self, *words):
        with open(os.environ["SAID"], "a") as file:
            file.write(json.dumps(words) + "\\n")

    def log(self, values, step):
        if not isinstance(next(iter(values.values())), list):
            self._say("log", step, sorted(values))
        else:
            self._say("images", step, [image.shape for image in values["samples"]])

    def finish(self):
        self._say("finish")

class Image:
    def __init__(self, pixels):
        self.shape = list(pixels.shape)

class Config:
    def update(self, values, allow_val_change):
        Run()._say("config", values["run"]["steps"])

config = Config()

def init(project, **settings):
    if "REFUSE" in os.environ:
        raise RuntimeError("no API key\\nconfigured")
    Run()._say("init", project, settings)
    return Run()
"""


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of this name, which accelerate takes for the real one, and the file it writes."""
    site = tmp_path / "site"
    (site / "wandb-9.dist-info").mkdir(parents=True)
    (site / "wandb-9.dist-info" / "METADATA").write_text("Name: wandb\nVersion: 9\n")
    (site / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    yield tmp_path / "said"
    sys.modules.pop("wandb", None)


def said(path: Path) -> list[list[object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_weights_and_biases_gets_the_records_and_the_pictures(
    wandb: Path, images_config: TrainConfig, tmp_path: Path
) -> None:
    more = ["run.trackers=['wandb']", "run.steps=2", "run.sample_every=2", "validation.share=0.01"]
    config = apply_overrides(images_config, more)
    run(config, tmp_path / "run")
    begun, configured, *rest = said(wandb)
    name = (tmp_path / "run" / ID).read_text()
    folder = str(tmp_path / "run")
    settings = {"name": "run", "dir": folder, "id": name, "resume": "allow"}
    assert begun == ["init", "difftool", settings]
    assert configured == ["config", 2]
    values = ["grad_norm", "images_per_second", "loss", "lr"]
    assert rest == [
        ["log", 1, values],
        ["log", 2, [*values, "validation_loss"]],
        ["images", 2, [[40, 40]]],
        ["finish"],
    ]
    assert not (tmp_path / "run" / "tensorboard").exists()
    run(config, tmp_path / "run", "run.steps=3", "optimizer.decay=constant")
    again = said(wandb)[6:]
    assert again[0] == begun  # it goes on in the same one
    assert [each[:2] for each in again[2:]] == [["log", 3], ["images", 3], ["finish"]]
    run(config, tmp_path / "run", "run.steps=3", "optimizer.decay=constant")
    assert len(said(wandb)) == 6 + len(again)  # nothing was left to do


def test_what_it_says_when_it_does_not_start_is_one_line(
    wandb: Path, points_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUSE", "1")
    with pytest.raises(ResourceError, match="does not start: no API key ") as caught:
        run(points_config, tmp_path / "run", "run.trackers=['wandb']")
    assert "wandb login" in caught.value.hint


def test_without_its_library_nothing_is_written(points_config: TrainConfig, tmp_path: Path) -> None:
    assert importlib.util.find_spec("wandb") is None
    with pytest.raises(MissingDependencyError, match="wandb is not installed") as caught:
        run(points_config, tmp_path / "run", "run.trackers=['tensorboard','wandb']")
    assert "pip install wandb" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_has_the_records_and_the_pictures(
    images_config: TrainConfig, tmp_path: Path
) -> None:
    more = ("run.steps=2", "run.sample_every=2", "validation={share=0.01,every=2}")
    run(images_config, tmp_path, *more)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert {"loss", "lr", "validation_loss"} <= {*found.Tags()["scalars"]}
    assert [each.step for each in found.Scalars("validation_loss")] == [2]
    (picture,) = found.Images("samples")
    assert (picture.step, picture.width, picture.height) == (2, 40, 40)


def test_no_tracker_at_all(points_config: TrainConfig, tmp_path: Path) -> None:
    run(points_config, tmp_path, "run.trackers=[]", "run.steps=1")
    assert {path.name for path in tmp_path.iterdir()} >= {"metrics.jsonl", "checkpoints"}
    assert not (tmp_path / "tensorboard").exists()
