"""A run is a pure function of its configuration, however it is interrupted or split."""

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from difftool import checkpoint as ckpt
from difftool.errors import ArtefactError, Cancelled, CheckFailed, UsageError
from difftool.networks.trained import load_checkpoint
from difftool.train import trainer
from difftool.train.config import DataConfig, TrainConfig, apply_overrides, read_toml
from difftool.train.data import Data
from difftool.train.state import TrainState
from tests.train.conftest import digests, records, require_near, run

AtStep = dict[int, Callable[[], None]]


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> AtStep:
    """Step -> what happens before it, once."""
    advance, plan = TrainState.advance, {}

    def advancing(state: TrainState) -> tuple[torch.Tensor, torch.Tensor]:
        plan.pop(state.step, lambda: None)()
        return advance(state)

    monkeypatch.setattr(TrainState, "advance", advancing)
    return plan


class Crash(Exception):
    """Ends a run between two steps."""


def crash() -> None:
    raise Crash


def same(one: Path, other: Path) -> bool:
    return (digests(one), records(one)) == (digests(other), records(other))


@pytest.mark.parametrize("method", ["images", "points", "labels"])
def test_stopped_anywhere_and_resumed_is_bit_identical(
    method: str, request: pytest.FixtureRequest, tmp_path: Path, at_step: AtStep
) -> None:
    config = request.getfixturevalue(f"{method}_config")
    run(config, tmp_path / "whole")
    for stop in (1, 2, 5):
        at_step[stop] = crash
        with pytest.raises(Crash):
            run(config, tmp_path / f"{stop}")
        run(config, tmp_path / f"{stop}")
        assert same(tmp_path / f"{stop}", tmp_path / "whole")


def test_a_checkpoint_before_a_damaged_one_is_kept_until_that_is_made_again(
    points_config: TrainConfig, tmp_path: Path, at_step: AtStep
) -> None:
    """A run that keeps only the newest checkpoint keeps the newest that can be read."""
    run(points_config, tmp_path, "run.keep=2")
    whole = digests(tmp_path)
    (ckpt.list_checkpoints(tmp_path)[-1] / ckpt.MODEL).write_bytes(b"")
    at_step[4] = partial(os.kill, os.getpid(), signal.SIGTERM)
    with pytest.raises(Cancelled, match="after step 5 of 6"):
        run(points_config, tmp_path, "run.keep=1")
    assert ckpt.find_checkpoint(tmp_path).name == "step-000000005"
    run(points_config, tmp_path, "run.keep=1")
    assert digests(tmp_path) == whole


def test_the_seed_decides(points_config: TrainConfig, tmp_path: Path, whole_run: Path) -> None:
    run(points_config, tmp_path, "run.seed=4")
    assert digests(tmp_path) != digests(whole_run)


def test_accumulation_changes_only_rounding(images_config: TrainConfig, tmp_path: Path) -> None:
    for parts in (1, 4):
        without = "network.arguments.dropout=0.0"
        run(images_config, tmp_path / str(parts), without, f"optimizer.accumulate={parts}")
    require_near(tmp_path / "1", tmp_path / "4", [ckpt.MODEL], rtol=1e-3, atol=1e-5, losses=1e-4)


@pytest.mark.parametrize(
    "override",
    [
        "network.parameterization=v",
        "loss.kind=hybrid",
        "run.precision=bf16",
        "run.channels_last=false",
    ],
)
def test_other_ways_to_train(images_config: TrainConfig, tmp_path: Path, override: str) -> None:
    loaded = load_checkpoint(run(images_config, tmp_path, override, "run.steps=2"))
    assert loaded.step == 2
    assert loaded.spec.learned_variance == (override == "loss.kind=hybrid")


@pytest.mark.parametrize("kind", ["implicit", "sliced", "denoising"])
def test_every_score_loss_falls(points_config: TrainConfig, tmp_path: Path, kind: str) -> None:
    longer = ("run.steps=60", "run.batch=64", "optimizer.lr=0.01")
    run(points_config, tmp_path, f"loss.kind={kind}", *longer)
    losses = [loss for _, loss, _ in records(tmp_path)]
    assert sum(losses[-10:]) < sum(losses[:10])


def test_ctrl_c_saves_after_the_step_at_hand(
    points_config: TrainConfig, tmp_path: Path, at_step: AtStep, whole_run: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    at_step[2] = partial(os.kill, os.getpid(), signal.SIGINT)
    with pytest.raises(Cancelled, match="after step 3 of 6") as caught:
        run(points_config, tmp_path)
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) == before
    assert ckpt.find_checkpoint(tmp_path).name == "step-000000003"
    run(points_config, tmp_path)
    assert digests(tmp_path) == digests(whole_run)


def test_a_loss_that_is_not_finite_ends_the_run(points_config: TrainConfig, tmp_path: Path) -> None:
    run(points_config, tmp_path / "run", "run.steps=2")
    steep = ("optimizer.decay=constant", "optimizer.lr=1e30", "run.log_every=50")
    message = r"loss is (nan|inf) .* at step 1 .*optimizer\.lr"
    with pytest.raises(CheckFailed, match=message) as caught:
        run(points_config, tmp_path / "diverged", *steep)
    assert "\n" not in str(caught.value)
    assert ckpt.list_checkpoints(tmp_path / "diverged") == []
    assert load_checkpoint(tmp_path / "run").step == 2


def test_another_run_in_the_folder_is_refused(
    points_config: TrainConfig, images_config: TrainConfig, tmp_path: Path
) -> None:
    run(points_config, tmp_path)
    before = digests(tmp_path)
    with pytest.raises(UsageError, match="already holds a run"):
        run(points_config, tmp_path, resume=False)
    for other, message in (
        ("optimizer.lr=1", r"was trained with optimizer\.lr 0\.01, not 1\.0 "),
        ("optimizer.clip=1", r"optimizer\.clip none, not 1\.0"),
        ("network.arguments.layers=2", r"network\.arguments\.layers none, not 2"),
        ("data.source=moons", "was trained"),
        ("run.seed=4", "was trained"),
        ("data.count=99", "was trained"),
    ):
        with pytest.raises(UsageError, match=message):
            run(points_config, tmp_path, other)
    with pytest.raises(UsageError, match=r"with method ncsn, not ddpm; .*; \d+ more"):
        run(images_config, tmp_path)
    checkpoints = ckpt.list_checkpoints(tmp_path)
    for path in checkpoints:
        (path / ckpt.MODEL).unlink()
    with pytest.raises(ArtefactError, match=r"model\.safetensors"):
        run(points_config, tmp_path)
    assert read_toml(tmp_path / "config.toml") == points_config
    assert json.loads((checkpoints[-1] / ckpt.CONFIG).read_text())["files"] == before


def test_a_finished_run_can_be_made_longer(points_config: TrainConfig, tmp_path: Path) -> None:
    constant = apply_overrides(points_config, ["optimizer.decay=constant"])
    run(constant, tmp_path / "run", "run.steps=4")
    run(constant, tmp_path / "run")
    run(constant, tmp_path / "whole")
    found, whole = digests(tmp_path / "run"), digests(tmp_path / "whole")
    for file in (ckpt.MODEL, ckpt.EMA, ckpt.OPTIMIZER):
        assert found[file] == whole[file]


def test_batches_that_do_not_split_over_processes(
    points_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 3)
    with pytest.raises(UsageError, match=r"8 does not split over 3 processes.*multiple of 3"):
        run(points_config, tmp_path)


def test_a_sample_grid_is_drawn(images_config: TrainConfig, tmp_path: Path) -> None:
    run(images_config, tmp_path, "run.sample_every=3")
    grids = sorted((tmp_path / "samples").iterdir())
    assert [path.name for path in grids] == ["step-000000003.png", "step-000000006.png"]
    with Image.open(grids[0]) as image:
        assert (image.size, image.mode) == ((40, 40), "L")


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("points", "run.sample_every=3", "are not pictures"),
        ("points", "sampler.name=milstein", "unknown sampler 'milstein'"),
        ("points", "sampler.arguments.steps=7", "do not divide"),
        ("points", "network.arguments.width=3", "no argument 'width'"),
        ("points", "schedule.kind=linear", "schedule linear"),
        ("parts", "data.source=swiss_roll", "no labels 'label'"),
        ("parts", "data.labels=kind", "no labels 'kind'"),
        ("parts", "network.kind=ncsnv2", "'ncsnv2' takes no labels"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    config: str, overrides: str, message: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        run(request.getfixturevalue(f"{config}_config"), tmp_path / "run", *overrides.split())
    assert list(tmp_path.iterdir()) == []


def test_a_gradient_that_is_not_finite_is_never_saved(
    points_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the step itself is still finite; its weights are not."""
    advance = TrainState.advance

    def broken(state: TrainState) -> tuple[torch.Tensor, torch.Tensor]:
        loss, norm = advance(state)
        return loss, norm / 0 if state.step == 4 else norm

    monkeypatch.setattr(TrainState, "advance", broken)
    with pytest.raises(CheckFailed, match="gradient inf at step 3"):
        run(points_config, tmp_path)
    assert ckpt.find_checkpoint(tmp_path).name == "step-000000002"


@pytest.mark.parametrize(
    ("resume", "message"),
    [(True, r"run\.seed 3, not 4"), (False, "already holds a run")],
)
def test_a_run_is_judged_when_it_is_held(
    resume: bool,
    message: str,
    points_config: TrainConfig,
    tmp_path: Path,
    whole_run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another training with another seed begins and ends while this one reads its data."""
    load, folder = trainer.load_data, tmp_path / "run"

    def slowly(config: DataConfig, seed: int) -> Data:
        if seed == 4:
            run(points_config, folder)
        return load(config, seed)

    monkeypatch.setattr(trainer, "load_data", slowly)
    with pytest.raises(UsageError, match=message):
        run(points_config, folder, "run.seed=4", resume=resume)
    assert same(folder, whole_run)
    assert read_toml(folder / "config.toml") == points_config


def pictures(folder: Path, *shades: int) -> Path:
    folder.mkdir(exist_ok=True)
    for index, shade in enumerate(shades):
        image = Image.fromarray(np.full((8, 8), shade, np.uint8))
        image.save(folder / f"{index}.png")
    return folder


def test_a_run_goes_on_with_its_own_pictures_alone(
    images_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder, own = tmp_path / "run", pictures(tmp_path / "a", 10, 200)

    def trained(source: Path, steps: int) -> None:
        run(images_config, folder, f"data.source={json.dumps(str(source))}", f"run.steps={steps}")

    trained(own, 1)
    before = digests(folder)
    message = r"trained on 2 items .*, not on these [23] "
    for shades in ((10, 201), (200, 10), (10, 200, 10)):
        other = pictures(tmp_path / "other", *shades)
        with pytest.raises(UsageError, match=message) as caught:
            trained(other, 2)
        assert "give the same data" in caught.value.hint
        assert digests(folder) == before
    trained(own.rename(tmp_path / "moved"), 2)
    saved = ckpt.find_checkpoint(folder) / "config.json"
    assert saved.parent.name == "step-000000002"
    config = json.loads(saved.read_text())
    del config["data"]
    saved.write_text(json.dumps(config))
    trained(other, 3)  # an earlier version made it, which kept no digest
