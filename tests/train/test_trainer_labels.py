"""Training with class labels: what reaches the network, and what it learns."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from difftool import checkpoint as ckpt
from difftool.data import ARRAY, from_array
from difftool.errors import UsageError
from difftool.export import export
from difftool.networks.trained import load_checkpoint
from difftool.train import draws, read_toml, train
from difftool.train.config import TrainConfig, apply_overrides, model_spec
from difftool.train.objective import Objective
from tests.train.conftest import digests, run


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_the_network_gets_each_label_or_none(
    labels_config: TrainConfig, probability: float
) -> None:
    config = apply_overrides(labels_config, [f"loss.label_dropout={probability}"])
    spec = model_spec(config, (1, 8, 8), classes=10)
    seen = []

    def network(x: Tensor, cond: Tensor, label: Tensor) -> Tensor:
        seen.append(label)
        return x

    slots, labels = np.arange(64), torch.arange(64) % 10
    objective = Objective(config, spec, torch.device("cpu"))
    objective(network, torch.zeros(64, 1, 8, 8), labels, 5, slots)
    dropped = draws.drops(config.run.seed, 5, slots, probability)
    assert seen[0].tolist() == torch.where(dropped, 10, labels).tolist()
    assert dropped.any() == (probability > 0)


def test_labels_change_the_training(labels_config: TrainConfig, tmp_path: Path) -> None:
    for dropout in (0.5, 0.0):
        run(labels_config, tmp_path / f"{dropout}", f"loss.label_dropout={dropout}", "run.steps=2")
    assert digests(tmp_path / "0.5")[ckpt.MODEL] != digests(tmp_path / "0.0")[ckpt.MODEL]
    assert not load_checkpoint(tmp_path / "0.0").spec.null_label


@pytest.mark.parametrize("kind", ["denoising", "sliced"])
def test_the_labels_are_learned(parts_config: TrainConfig, tmp_path: Path, kind: str) -> None:
    """Under much noise a label says which Gaussian a point is of: (-5, -5) or (5, 5)."""
    levels = ("schedule.levels=2", "schedule.sigma_min=4.0", "sampler.arguments.steps=8")
    size = ("network.arguments.hidden=32", "data.count=4000", "run.batch=128", "run.steps=300")
    rates = ("optimizer.lr=0.03", "run.log_every=300", "run.checkpoint_every=300")
    loss = (f"loss.kind={kind}", "loss.label_dropout=0.3")
    found = run(parts_config, tmp_path, *levels, *size, *rates, *loss)
    loaded = load_checkpoint(found, ema=False)
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


def test_other_ways_to_train_with_labels(labels_config: TrainConfig, tmp_path: Path) -> None:
    ways = ("loss.kind=hybrid", "run.precision=bf16", "optimizer.accumulate=2")
    loaded = load_checkpoint(
        run(labels_config, tmp_path, *ways, "run.steps=2", "run.sample_every=2")
    )
    assert (loaded.spec.classes, loaded.spec.learned_variance) == (10, True)
    assert loaded.spec.null_label
    assert loaded.network.label_embedding.weight.shape[0] == 11
    assert (tmp_path / "samples" / "step-000000002.png").exists()


def test_a_run_from_before_labels_goes_on(points_config: TrainConfig, tmp_path: Path) -> None:
    constant = apply_overrides(points_config, ["optimizer.decay=constant", "run.steps=2"])
    config = run(constant, tmp_path) / ckpt.CONFIG
    saved = json.loads(config.read_text())
    del saved["training"]["data"]["labels"], saved["training"]["loss"]["label_dropout"]
    config.write_text(json.dumps(saved))
    assert load_checkpoint(run(constant, tmp_path, "run.steps=3")).step == 3
    with pytest.raises(UsageError, match=r"was trained with data\.labels"):
        run(constant, tmp_path, "run.steps=3", "data.labels=label")


def test_an_array_is_trained_on_and_its_names_are_kept(
    labels_config: TrainConfig, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    items = from_array(pixels, np.arange(12) % 3, ["ant", "bee", "cat"])
    config = apply_overrides(labels_config, ["run.steps=2"])
    train(config, tmp_path / "run", data=items)
    again = apply_overrides(config, ["run.steps=3"])
    assert train(again, tmp_path / "run", data=items).step == 3
    found = load_checkpoint(tmp_path / "run")
    assert found.spec.class_names == ("ant", "bee", "cat")
    assert found.config["training"]["data"]["source"] == ARRAY
    bundle = export(tmp_path / "run", tmp_path / "bundle")
    assert bundle.spec.class_names == ("ant", "bee", "cat")
    with pytest.raises(UsageError, match="was trained on 12 items"):
        train(again, tmp_path / "run", data=from_array(pixels[:11], np.arange(11) % 3))
    with pytest.raises(UsageError, match="the array has no labels"):
        train(config, tmp_path / "other", data=pixels)
    with pytest.raises(UsageError, match="this data was an array"):
        train(read_toml(tmp_path / "run" / "config.toml"), tmp_path / "run")
    assert not (tmp_path / "other").exists()
