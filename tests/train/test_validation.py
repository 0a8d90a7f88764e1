"""Data that is held out: which, what its loss is, and that it changes nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from difftool import checkpoint as ckpt
from difftool.errors import UsageError
from difftool.networks.trained import load_checkpoint
from difftool.train import draws, trainer, validation
from difftool.train.config import DataConfig, TrainConfig, apply_overrides
from difftool.train.data import Data, given_data, load_data
from difftool.train.losses import level_table, simple
from difftool.train.validation import divided
from tests.train.conftest import digests, run


def losses(folder: Path) -> dict[int, float]:
    """The validation losses of a run, by step."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {each["step"]: each["validation_loss"] for each in lines if "validation_loss" in each}


def test_a_share_is_held_out_and_the_rest_is_all_else(labels_config: TrainConfig) -> None:
    data = load_data(labels_config.data, 3)
    size = len(data.items)
    whole = replace(data, items=torch.arange(size)[:, None])
    config = apply_overrides(labels_config, ["validation.share=0.1"])
    rest, held = divided(config, whole)
    assert held is not None
    assert len(held.items) == round(0.1 * size)
    assert sorted([*rest.items[:, 0].tolist(), *held.items[:, 0].tolist()]) == [*range(size)]
    assert (rest.flip, held.flip) == (True, False)
    assert data.labels is not None
    for part in (rest, held):
        assert part.labels is not None
        assert torch.equal(part.labels, data.labels[part.items[:, 0]])
    other = divided(apply_overrides(config, ["run.seed=4"]), whole)[1]
    assert other is not None
    assert not torch.equal(other.items, held.items)
    assert divided(labels_config, whole) == (whole, None)


@pytest.mark.parametrize("share", [1e-9, 0.9999])
def test_a_share_of_nothing_is_refused(points_config: TrainConfig, share: float) -> None:
    config = apply_overrides(points_config, [f"validation.share={share}"])
    with pytest.raises(UsageError, match=r"of 100 samples is (0|100) .*at least one sample"):
        divided(config, load_data(config.data, 0))


def test_the_loss_is_that_of_the_saved_weights(images_config: TrainConfig, tmp_path: Path) -> None:
    """Without dropout, over all that is held out, at the levels and noise of its draws."""
    config = apply_overrides(images_config, ["validation={share=0.01,every=4}", "run.keep=9"])
    run(config, tmp_path)
    found = losses(tmp_path)
    assert [*found] == [4, 6]
    _, held = divided(config, load_data(config.data, 3))
    assert held is not None
    count, saved = len(held.items), ckpt.list_checkpoints(tmp_path)
    for folder in saved:
        loaded = load_checkpoint(folder, ema=False)
        if loaded.step not in found:
            continue
        slots = np.arange(count)
        x0, _ = held.batch(loaded.spec, 3, 0, count, slots)
        noise = draws.normal(3, 0, slots, loaded.spec.shape)
        levels = draws.levels(3, 0, slots, 20)
        network = loaded.network.eval()
        with torch.no_grad():
            each = simple(
                lambda x, cond, of=network: of(x, of.condition(cond)),
                x0,
                noise,
                level_table(loaded.spec).at(levels, 4),
            )
        assert found[loaded.step] == pytest.approx(each.mean().item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["sliced", "implicit", "denoising"])
def test_every_loss_can_be_validated_in_parts(
    kind: str, points_config: TrainConfig, tmp_path: Path
) -> None:
    config = apply_overrides(points_config, [f"loss.kind={kind}", "validation.share=0.3"])
    run(config, tmp_path / "8", "run.steps=1")
    run(config, tmp_path / "1", "run.steps=1", "optimizer.accumulate=8")
    first, second = losses(tmp_path / "8")[1], losses(tmp_path / "1")[1]
    assert second == pytest.approx(first, rel=1e-3)
    run(config, tmp_path / "few", "run.steps=1", "validation.samples=2")
    assert losses(tmp_path / "few")[1] != first


def test_to_look_often_changes_no_weight(images_config: TrainConfig, tmp_path: Path) -> None:
    config = apply_overrides(images_config, ["validation.share=0.01"])
    for every in (1, 6):
        run(config, tmp_path / str(every), f"validation.every={every}")
    often, seldom = digests(tmp_path / "1"), digests(tmp_path / "6")
    assert all(often[file] == seldom[file] for file in (ckpt.MODEL, ckpt.EMA, ckpt.OPTIMIZER))
    assert [*losses(tmp_path / "1")] == [1, 2, 3, 4, 5, 6]
    assert losses(tmp_path / "1")[6] == losses(tmp_path / "6")[6]


def test_a_resumed_run_holds_out_the_same(points_config: TrainConfig, tmp_path: Path) -> None:
    config = apply_overrides(points_config, ["validation={share=0.2,every=2}"])
    config = apply_overrides(config, ["optimizer.decay=constant"])
    run(config, tmp_path / "whole")
    run(config, tmp_path / "parts", "run.steps=4")
    done = trainer.train(config, tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert done.validation_loss == losses(tmp_path / "parts")[6]
    assert f"validation loss {done.validation_loss:.4g} -> " in str(done)
    with pytest.raises(UsageError, match=r"trained with validation\.share 0\.2, not 0\.1"):
        run(config, tmp_path / "whole", "validation.share=0.1")


def test_a_split_by_name(
    images_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is loaded as the data are, and must be of their kind."""
    splits = {
        "train": Data(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), sha256="1"),
        "test": Data(torch.ones(2, 1, 8, 8, dtype=torch.uint8), flip=True, sha256="2"),
        "large": Data(torch.ones(2, 1, 9, 9, dtype=torch.uint8), sha256="3"),
    }

    def load(config: DataConfig, seed: int) -> Data:
        return splits[config.split]

    monkeypatch.setattr(validation, "load_data", load)
    for name, message in (
        ("train", "is the data to train on"),
        ("large", r"samples \[1, 9, 9\] of 0 classes, not \[1, 8, 8\] of 0"),
    ):
        with pytest.raises(UsageError, match=message):
            divided(apply_overrides(images_config, [f"validation.split={name}"]), splits["train"])
    config = apply_overrides(images_config, ["validation.split=test"])
    rest, held = divided(config, splits["train"])
    assert rest is splits["train"]
    assert held == replace(splits["test"], flip=False)
    run(config, tmp_path, "run.steps=1")
    assert [*losses(tmp_path)] == [1]


def test_an_array_has_no_split(images_config: TrainConfig) -> None:
    config, data = given_data(images_config, np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(UsageError, match=r"an array has no split test .*validation\.share"):
        divided(apply_overrides(config, ["validation.split=test"]), data)
