"""Training with class labels: what reaches the network, what it learns, and that runs resume."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from difftool import checkpoint as ckpt
from difftool.errors import UsageError
from difftool.networks.trained import load_checkpoint
from difftool.train import draws
from difftool.train.config import TrainConfig, apply_overrides, model_spec
from difftool.train.objective import Objective
from difftool.train.trainer import train


@pytest.fixture
def labelled(images_config: TrainConfig) -> TrainConfig:
    """A DDPM of 8x8 digits with labels, half of which are withheld."""
    return apply_overrides(images_config, ["data.labels=label", "loss.label_dropout=0.5"])


@pytest.fixture
def labelled_points(points_config: TrainConfig) -> TrainConfig:
    """An NCSN of points from two Gaussians, told nine times in ten which of them."""
    return apply_overrides(points_config, ["data.labels=label", "loss.label_dropout=0.1"])


def files(run: Path) -> dict[str, Any]:
    return ckpt.read_config(ckpt.find_checkpoint(run))["files"]


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_the_network_gets_each_label_or_none(labelled: TrainConfig, probability: float) -> None:
    config = apply_overrides(labelled, [f"loss.label_dropout={probability}"])
    spec = model_spec(config, (1, 8, 8), classes=10)
    seen = []

    def network(x: Tensor, cond: Tensor, label: Tensor) -> Tensor:
        seen.append(label)
        return x

    slots, labels = np.arange(64), torch.arange(64) % 10
    objective = Objective(config, spec, torch.device("cpu"))
    objective(network, torch.zeros(64, 1, 8, 8), labels, 5, slots)
    expected = [
        10 if dropped else label
        for label, dropped in zip(
            labels.tolist(), draws.drops(config.run.seed, 5, slots, probability), strict=True
        )
    ]
    assert seen[0].tolist() == expected
    assert (10 in expected) == (probability > 0)


def test_stopped_and_resumed_is_bit_identical(labelled: TrainConfig, tmp_path: Path) -> None:
    train(labelled, tmp_path / "whole", progress=False)
    train(apply_overrides(labelled, ["run.steps=3"]), tmp_path / "parts", progress=False)
    train(labelled, tmp_path / "parts", progress=False)
    weights = (ckpt.MODEL, ckpt.EMA, ckpt.OPTIMIZER)
    parts, whole = files(tmp_path / "parts"), files(tmp_path / "whole")
    assert [parts[name] for name in weights] == [whole[name] for name in weights]
    loaded = load_checkpoint(tmp_path / "whole")
    assert (loaded.spec.classes, loaded.spec.null_label) == (10, True)
    assert loaded.network.label_embedding.weight.shape[0] == 11


def test_labels_change_the_training(labelled: TrainConfig, tmp_path: Path) -> None:
    for name, dropout in (("a", 0.5), ("b", 0.0)):
        config = apply_overrides(labelled, [f"loss.label_dropout={dropout}", "run.steps=2"])
        train(config, tmp_path / name, progress=False)
    assert files(tmp_path / "a")[ckpt.MODEL] != files(tmp_path / "b")[ckpt.MODEL]
    assert not load_checkpoint(tmp_path / "b").spec.null_label


@pytest.mark.parametrize("kind", ["denoising", "sliced"])
def test_the_labels_are_learned(labelled_points: TrainConfig, tmp_path: Path, kind: str) -> None:
    """Under much noise a label says which Gaussian a point is of: (-5, -5) or (5, 5)."""
    config = apply_overrides(
        labelled_points,
        [
            f"loss.kind={kind}",
            "loss.label_dropout=0.3",
            "schedule.levels=2",
            "schedule.sigma_min=4.0",
            "sampler.arguments.steps=8",
            "optimizer.lr=0.03",
            "run.steps=300",
            "run.batch=128",
            "data.count=4000",
            "network.arguments.hidden=32",
            "run.log_every=300",
            "run.checkpoint_every=300",
        ],
    )
    loaded = load_checkpoint(train(config, tmp_path / "run").checkpoint, ema=False)
    spec, x = loaded.spec, torch.zeros(3, 2)
    level = len(spec.schedule) - 1
    c_in, c_skip, c_out = (float(value) for value in spec.coefficients(level))
    cond = torch.full((3,), float(spec.conds(level)))
    c = loaded.network.condition(cond, torch.tensor([0, 1, 2]))
    denoised = (c_skip * x + c_out * loaded.network(c_in * x, c)).mean(1)
    # sigma is 5: the posterior mean from 0 is 25/26 of the way to the Gaussian that is named.
    assert denoised[:2].tolist() == pytest.approx([-4.8, 4.8], abs=0.5)
    # Of the two, (5, 5) has four points in five.
    assert denoised[2].item() == pytest.approx(0.6 * 4.8, abs=1.0)


def test_other_ways_to_train_with_labels(labelled: TrainConfig, tmp_path: Path) -> None:
    config = apply_overrides(
        labelled,
        [
            "loss.kind=hybrid",
            "run.precision=bf16",
            "optimizer.accumulate=2",
            "run.steps=2",
            "run.sample_every=2",
        ],
    )
    loaded = load_checkpoint(train(config, tmp_path / "run").checkpoint)
    assert (loaded.spec.classes, loaded.spec.learned_variance) == (10, True)
    assert (tmp_path / "run" / "samples" / "step-000000002.png").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.source=swiss_roll", "no labels 'label'"),
        ("data.labels=kind", "no labels 'kind'"),
        ("network.kind=ncsnv2", "'ncsnv2' takes no labels"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    labelled_points: TrainConfig, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(apply_overrides(labelled_points, [override]), tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_run_from_before_there_were_labels_goes_on(
    points_config: TrainConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    constant = apply_overrides(points_config, ["optimizer.decay=constant", "run.steps=2"])
    config = train(constant, run).checkpoint / ckpt.CONFIG
    saved = json.loads(config.read_text())
    del saved["training"]["data"]["labels"], saved["training"]["loss"]["label_dropout"]
    config.write_text(json.dumps(saved))
    longer = apply_overrides(constant, ["run.steps=3"])
    assert load_checkpoint(train(longer, run).checkpoint).step == 3
    with pytest.raises(UsageError, match="another configuration of data"):
        train(apply_overrides(longer, ["data.labels=label"]), run, progress=False)
