"""A run is a pure function of its configuration, however it is interrupted or split."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from difftool import checkpoint as ckpt
from difftool.errors import ArtefactError, Cancelled, CheckFailed, UsageError
from difftool.networks.trained import load_checkpoint
from difftool.train import trainer
from difftool.train.config import DataConfig, TrainConfig, apply_overrides, read_toml, to_toml
from difftool.train.data import Data
from difftool.train.state import TrainState
from difftool.train.trainer import train

KILLED_AT_STEP = """
import os, signal, sys
from difftool.train.config import read_toml
from difftool.train.state import TrainState
from difftool.train.trainer import train

advance = TrainState.advance

def until_killed(state):
    if state.step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return advance(state)

TrainState.advance = until_killed
train(read_toml(sys.argv[1]), sys.argv[2], progress=False)
"""


IN_EACH_PROCESS = """
import sys
from difftool.train.config import read_toml
from difftool.train.trainer import train

train(read_toml(sys.argv[1]), sys.argv[2], progress=False)
"""


class Stop(Exception):
    """Ends a run between two steps, as a crash does."""


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Makes runs crash before a step; None lets them go on."""
    advance, at = TrainState.advance, [-1]

    def stopping(state: TrainState) -> tuple[torch.Tensor, torch.Tensor]:
        if state.step == at[0]:
            raise Stop
        return advance(state)

    monkeypatch.setattr(TrainState, "advance", stopping)
    return lambda step: at.__setitem__(0, -1 if step is None else step)


def digests(run: Path) -> dict[str, Any]:
    return ckpt.read_config(ckpt.find_checkpoint(run))["files"]


def records(run: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines]


@pytest.mark.parametrize("method", ["images", "points"])
def test_stopped_anywhere_and_resumed_is_bit_identical(
    method: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    stop_at: Callable[[int | None], None],
) -> None:
    config = request.getfixturevalue(f"{method}_config")
    train(config, tmp_path / "whole", progress=False)
    for stop in (1, 2, 5):
        stop_at(stop)
        with pytest.raises(Stop):
            train(config, tmp_path / f"stop{stop}", progress=False)
        stop_at(None)
        train(config, tmp_path / f"stop{stop}", progress=False)
        assert digests(tmp_path / f"stop{stop}") == digests(tmp_path / "whole")
        assert records(tmp_path / f"stop{stop}") == records(tmp_path / "whole")


def test_killed_and_resumed_is_bit_identical(points_config: TrainConfig, tmp_path: Path) -> None:
    """SIGKILL in a process of its own, one step past a checkpoint; resumed in another process."""
    recipe, run = tmp_path / "c.toml", tmp_path / "killed"
    recipe.write_text(to_toml(points_config))
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    line = [sys.executable, "-c", KILLED_AT_STEP, recipe, run, "3"]
    child = subprocess.run(line, env={**os.environ, **threads}, capture_output=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert ckpt.find_checkpoint(run).name == "step-000000002"
    train(points_config, run, progress=False)
    train(points_config, tmp_path / "whole", progress=False)
    assert digests(run) == digests(tmp_path / "whole")
    assert records(run) == records(tmp_path / "whole")


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    points_config: TrainConfig, tmp_path: Path
) -> None:
    train(points_config, tmp_path / "run", progress=False)
    whole = digests(tmp_path / "run")
    (ckpt.list_checkpoints(tmp_path / "run")[-1] / ckpt.MODEL).write_bytes(b"")
    train(points_config, tmp_path / "run", progress=False)
    assert digests(tmp_path / "run") == whole


def test_a_checkpoint_before_a_damaged_one_is_kept(
    points_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that keeps the newest alone, the newest that can be read."""
    config = apply_overrides(points_config, ["run.keep=2"])
    train(config, tmp_path / "run", progress=False)
    whole = digests(tmp_path / "run")
    (ckpt.list_checkpoints(tmp_path / "run")[-1] / ckpt.MODEL).write_bytes(b"")
    config, advance = apply_overrides(points_config, ["run.keep=1"]), TrainState.advance

    def interrupted(state: TrainState) -> tuple[torch.Tensor, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGTERM)
        return advance(state)

    monkeypatch.setattr(TrainState, "advance", interrupted)
    with pytest.raises(Cancelled, match="after step 5 of 6"):
        train(config, tmp_path / "run", progress=False)
    monkeypatch.undo()
    assert ckpt.find_checkpoint(tmp_path / "run").name == "step-000000005"
    train(config, tmp_path / "run", progress=False)
    assert digests(tmp_path / "run")["model.safetensors"] == whole["model.safetensors"]


def test_the_seed_decides(points_config: TrainConfig, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 4)):
        config = apply_overrides(points_config, [f"run.seed={seed}"])
        train(config, tmp_path / name, progress=False)
    assert digests(tmp_path / "a") != digests(tmp_path / "b")


def test_accumulation_changes_nothing_but_rounding(
    images_config: TrainConfig, tmp_path: Path
) -> None:
    base = apply_overrides(images_config, ["network.arguments.dropout=0.0"])
    for parts in (1, 4):
        config = apply_overrides(base, [f"optimizer.accumulate={parts}"])
        train(config, tmp_path / str(parts), progress=False)
    whole, split = (
        load_file(ckpt.find_checkpoint(tmp_path / name) / ckpt.MODEL) for name in ("1", "4")
    )
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=1e-3, atol=1e-5)
    losses = [[loss for _, loss, _ in records(tmp_path / name)] for name in ("1", "4")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    "override",
    [
        "network.parameterization=v",
        "loss.kind=hybrid",
        "run.precision=bf16",
        "run.channels_last=false",
    ],
)
def test_other_ways_to_train_a_ddpm(
    images_config: TrainConfig, tmp_path: Path, override: str
) -> None:
    config = apply_overrides(images_config, [override, "run.steps=2"])
    loaded = load_checkpoint(train(config, tmp_path / "run").checkpoint)
    assert loaded.step == 2
    assert loaded.spec.learned_variance == (config.loss.kind == "hybrid")


@pytest.mark.parametrize("kind", ["implicit", "sliced", "denoising"])
def test_every_score_loss_falls(points_config: TrainConfig, tmp_path: Path, kind: str) -> None:
    config = apply_overrides(
        points_config, [f"loss.kind={kind}", "run.steps=60", "run.batch=64", "optimizer.lr=0.01"]
    )
    train(config, tmp_path / "run", progress=False)
    losses = [loss for _, loss, _ in records(tmp_path / "run")]
    assert sum(losses[-10:]) < sum(losses[:10])


def test_ctrl_c_saves_after_the_step_at_hand(
    points_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = TrainState.advance

    def interrupted(state: TrainState) -> tuple[torch.Tensor, torch.Tensor]:
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(state)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(TrainState, "advance", interrupted)
    with pytest.raises(Cancelled, match="after step 3 of 6") as caught:
        train(points_config, tmp_path / "run", progress=False)
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) == before
    assert ckpt.find_checkpoint(tmp_path / "run").name == "step-000000003"
    monkeypatch.undo()
    train(points_config, tmp_path / "run", progress=False)
    train(points_config, tmp_path / "whole", progress=False)
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_its_checkpoints(
    points_config: TrainConfig, tmp_path: Path
) -> None:
    train(apply_overrides(points_config, ["run.steps=2"]), tmp_path / "run", progress=False)
    config = apply_overrides(
        points_config, ["optimizer.decay=constant", "optimizer.lr=1e30", "run.log_every=50"]
    )
    with pytest.raises(
        CheckFailed, match=r"loss is (nan|inf) .* at step 1 .*optimizer\.lr"
    ) as caught:
        train(config, tmp_path / "diverged", progress=False)
    assert "\n" not in str(caught.value)
    assert ckpt.list_checkpoints(tmp_path / "diverged") == []
    assert load_checkpoint(tmp_path / "run").step == 2


def test_another_run_in_the_folder_is_refused(
    points_config: TrainConfig, images_config: TrainConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(points_config, run, progress=False)
    before = digests(run)
    with pytest.raises(UsageError, match="already holds a run"):
        train(points_config, run, resume=False, progress=False)
    with pytest.raises(UsageError, match="another configuration of optimizer"):
        train(apply_overrides(points_config, ["optimizer.lr=1"]), run, progress=False)
    with pytest.raises(UsageError, match="another configuration of method"):
        train(images_config, run, progress=False)
    for path in ckpt.list_checkpoints(run):
        (path / ckpt.MODEL).unlink()
    with pytest.raises(ArtefactError, match=r"model\.safetensors"):
        train(points_config, run, progress=False)
    assert read_toml(run / "config.toml") == points_config
    assert json.loads((ckpt.list_checkpoints(run)[-1] / ckpt.CONFIG).read_text())["files"] == before


def test_a_finished_run_can_be_made_longer(points_config: TrainConfig, tmp_path: Path) -> None:
    constant = apply_overrides(points_config, ["optimizer.decay=constant"])
    train(apply_overrides(constant, ["run.steps=4"]), tmp_path / "run", progress=False)
    train(constant, tmp_path / "run", progress=False)
    train(constant, tmp_path / "whole", progress=False)
    weights = [
        digests(tmp_path / name)[file]
        for file in (ckpt.MODEL, ckpt.EMA, ckpt.OPTIMIZER)
        for name in ("run", "whole")
    ]
    assert weights[::2] == weights[1::2]


def test_two_processes_train_what_one_does(points_config: TrainConfig, tmp_path: Path) -> None:
    train(points_config, tmp_path / "one", progress=False)
    (tmp_path / "c.toml").write_text(to_toml(points_config))
    (tmp_path / "two.py").write_text(IN_EACH_PROCESS)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    line = [sys.executable, *launch, tmp_path / "two.py", tmp_path / "c.toml", tmp_path / "two"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for file in (ckpt.MODEL, ckpt.EMA):
        one, two = (load_file(ckpt.find_checkpoint(tmp_path / n) / file) for n in ("one", "two"))
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)
    losses = [[loss for _, loss, _ in records(tmp_path / name)] for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_batches_that_do_not_split_over_processes(
    points_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 3)
    with pytest.raises(UsageError, match=r"8 does not split over 3 processes.*multiple of 3"):
        train(points_config, tmp_path / "run", progress=False)


def test_a_sample_grid_is_drawn(images_config: TrainConfig, tmp_path: Path) -> None:
    from PIL import Image

    config = apply_overrides(images_config, ["run.sample_every=3"])
    train(config, tmp_path / "run", progress=False)
    grids = sorted((tmp_path / "run" / "samples").iterdir())
    assert [path.name for path in grids] == ["step-000000003.png", "step-000000006.png"]
    with Image.open(grids[0]) as image:
        assert (image.size, image.mode) == ((40, 40), "L")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.sample_every=3", "no picture"),
        ("sampler.name=milstein", "unknown sampler 'milstein'"),
        ("sampler.arguments.steps=7", "do not divide"),
        ("network.arguments.width=3", "no argument 'width'"),
        ("schedule.kind=linear", "schedule linear"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    points_config: TrainConfig, tmp_path: Path, override: str, message: str
) -> None:
    config = apply_overrides(points_config, [override])
    with pytest.raises(UsageError, match=message):
        train(config, tmp_path / "run", progress=False)
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
        train(points_config, tmp_path / "run", progress=False)
    assert ckpt.find_checkpoint(tmp_path / "run").name == "step-000000002"


@pytest.mark.parametrize(
    ("resume", "message"),
    [(True, "another configuration of run"), (False, "already holds a run")],
)
def test_a_run_is_judged_when_it_is_held(
    resume: bool,
    message: str,
    points_config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another training with another seed begins and ends while this one reads its data."""
    load, run = trainer.load_data, tmp_path / "run"

    def slowly(config: DataConfig, seed: int) -> Data:
        if seed == 4:
            train(points_config, run, progress=False)
        return load(config, seed)

    monkeypatch.setattr(trainer, "load_data", slowly)
    second = apply_overrides(points_config, ["run.seed=4"])
    with pytest.raises(UsageError, match=message):
        train(second, run, resume=resume, progress=False)
    train(points_config, tmp_path / "alone", progress=False)
    assert digests(run) == digests(tmp_path / "alone")
    assert records(run) == records(tmp_path / "alone")
    assert read_toml(run / "config.toml") == points_config


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
    run, folder = tmp_path / "run", pictures(tmp_path / "a", 10, 200)

    def trained(folder: Path, steps: int) -> None:
        config = apply_overrides(
            images_config, [f"data.source={json.dumps(str(folder))}", f"run.steps={steps}"]
        )
        train(config, run, progress=False)

    trained(folder, 1)
    before = digests(run)
    for shades in ((10, 201), (200, 10), (10, 200, 10)):
        other = pictures(tmp_path / "other", *shades)
        with pytest.raises(
            UsageError, match=r"trained on 2 items .*, not on these [23] "
        ) as caught:
            trained(other, 2)
        assert "give the same data" in caught.value.hint
        assert digests(run) == before
    trained(folder.rename(tmp_path / "moved"), 2)
    assert ckpt.find_checkpoint(run).name == "step-000000002"
    (saved := ckpt.find_checkpoint(run) / "config.json").write_text(
        json.dumps({k: v for k, v in json.loads(saved.read_text()).items() if k != "data"})
    )
    trained(other, 3)  # an earlier version made it, which kept no digest


@pytest.mark.parametrize("change", ["data.source=moons", "run.seed=4", "data.count=99"])
def test_a_run_goes_on_with_its_own_toy_alone(
    change: str, points_config: TrainConfig, tmp_path: Path
) -> None:
    train(points_config, tmp_path / "run", progress=False)
    with pytest.raises(UsageError, match="was trained"):
        train(apply_overrides(points_config, [change]), tmp_path / "run", progress=False)
