"""Short trainings, and what is left of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from difftool import checkpoint as ckpt
from difftool.train.config import TrainConfig, apply_overrides, parse
from difftool.train.trainer import train
from tests.recipes import POINTS


def run(config: TrainConfig, folder: Path, *overrides: str, **options: Any) -> Path:
    """Train in a folder, by a configuration with some of it changed; return the checkpoint."""
    return train(apply_overrides(config, overrides), folder, **options).checkpoint


@pytest.fixture
def labels_config(images_config: TrainConfig) -> TrainConfig:
    """A DDPM of 8x8 digits with labels, half of which are withheld."""
    return apply_overrides(images_config, ["data.labels=label", "loss.label_dropout=0.5"])


@pytest.fixture
def parts_config(points_config: TrainConfig) -> TrainConfig:
    """An NCSN of points from two Gaussians, told nine times in ten which of them."""
    return apply_overrides(points_config, ["data.labels=label", "loss.label_dropout=0.1"])


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `points_config`, to read."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(parse(POINTS), folder)
    return folder


def digests(folder: Path) -> dict[str, Any]:
    return ckpt.read_config(ckpt.find_checkpoint(folder))["files"]


def records(folder: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines]


def require_near(
    one: Path, other: Path, files: list[str], *, rtol: float, atol: float, losses: float
) -> None:
    """Two runs have the same weights and losses but for rounding."""
    for file in files:
        expected, found = (load_file(ckpt.find_checkpoint(path) / file) for path in (one, other))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=rtol, atol=atol)
    expected, found = ([loss for _, loss, _ in records(path)] for path in (one, other))
    assert found == pytest.approx(expected, rel=losses)
