"""Several processes train what one does, end together, and go on from where they were."""

import json
import logging
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from difftool import checkpoint as ckpt
from difftool.errors import UsageError
from difftool.train.config import TrainConfig, apply_overrides, to_toml
from difftool.train.presets import preset
from difftool.train.processes import Vote, join
from tests.fresh import python
from tests.train.conftest import digests, records, require_near, run
from tests.train.ranks import LAUNCHER, train_together

WEIGHTS = [ckpt.MODEL, ckpt.EMA]


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    """As many steps with as many samples, however they are split.

    The gradient of a key's bias is zero but for rounding, which Adam would divide by its own size.
    With a larger eps it does not.
    """
    shorter = ["run.steps=60", "run.batch=16", "run.log_every=1", "optimizer.eps=1e-5"]
    config = apply_overrides(preset("digits"), shorter)
    run(config, tmp_path / "one")
    halves = train_together(config, [tmp_path / "two"] * 2, "optimizer.accumulate=2")
    assert halves == [(0, "")] * 2
    require_near(tmp_path / "one", tmp_path / "two", WEIGHTS, rtol=1e-4, atol=2e-5, losses=1e-5)


@pytest.mark.parametrize(
    "launcher",
    [
        "torch.distributed.run --standalone --nproc-per-node 2",
        "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 "
        "--mixed_precision no --dynamo_backend no --main_process_port 0",
    ],
    ids=["torchrun", "accelerate"],
)
def test_what_a_launcher_starts_trains_together(
    launcher: str, points_config: TrainConfig, whole_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text(to_toml(points_config))
    command = ["difftool", "train", "ncsn", "--config", tmp_path / "c.toml", "--accumulate", "2"]
    done = python(
        *("-m", *launcher.split(), "-m", *command, "--out", tmp_path / "two", "--json"),
        env={"OMP_NUM_THREADS": "1"},
    )
    assert json.loads(done.stdout)["step"] == 6  # the first of them alone prints
    saved = ckpt.read_config(ckpt.find_checkpoint(tmp_path / "two"))
    assert saved["processes"] == 2
    require_near(whole_run, tmp_path / "two", WEIGHTS, rtol=1e-4, atol=1e-6, losses=1e-5)


@pytest.mark.parametrize("count", [2, 3])
def test_a_killed_process_is_lost_to_the_others_and_the_run_goes_on(
    count: int, images_config: TrainConfig, tmp_path: Path
) -> None:
    """With dropout and flips. Of three gradients the order of the sum matters, too."""
    wider = ["run.batch=6", "network.arguments.channels=32", "network.arguments.groups=8"]
    config = apply_overrides(images_config, wider)
    whole, killed = [tmp_path / "whole"] * count, [tmp_path / "killed"] * count
    assert train_together(config, whole) == [(0, "")] * count
    lost, dead, *others = train_together(config, killed, signalled=(1, 3, signal.SIGKILL))
    assert dead == (-signal.SIGKILL, "")
    for code, said in (lost, *others):
        assert code == 5
        assert "another process of this training has ended" in said
        assert "resume: the same command" in said
    assert ckpt.find_checkpoint(killed[0]).name == "step-000000002"
    assert train_together(config, killed) == [(0, "")] * count
    assert digests(killed[0]) == digests(whole[0])
    assert records(killed[0]) == records(whole[0])


def test_a_run_goes_on_with_another_number_of_processes(
    points_config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = apply_overrides(points_config, ["optimizer.decay=constant"])
    folder = tmp_path / "run"
    assert train_together(config, [folder] * 2, "run.steps=2") == [(0, "")] * 2
    with caplog.at_level(logging.WARNING, "difftool"):
        run(config, folder, "run.steps=4", "optimizer.accumulate=4")
    assert "split over 1 x 4 processes x micro-batches, and was over 2 x 1" in caplog.text
    first, second = train_together(config, [folder] * 2, "run.steps=6")
    assert "split over 2 x 1 processes x micro-batches, and was over 1 x 4" in first[1]
    assert (first[0], second) == (0, (0, ""))
    run(config, tmp_path / "one")
    require_near(tmp_path / "one", folder, WEIGHTS, rtol=1e-4, atol=1e-6, losses=1e-5)


def test_a_signal_to_one_process_stops_all(points_config: TrainConfig, tmp_path: Path) -> None:
    seldom = ("run.log_every=50", "run.checkpoint_every=50")
    folder = tmp_path / "run"
    ended = train_together(points_config, [folder] * 2, *seldom, signalled=(1, 2, signal.SIGTERM))
    assert ended == [(130, "stopped after step 3 of 6 (resume to go on)\n")] * 2
    assert ckpt.find_checkpoint(folder).name == "step-000000003"


def test_bfloat16_in_two_processes(points_config: TrainConfig, tmp_path: Path) -> None:
    half = apply_overrides(points_config, ["run.precision=bf16"])
    run(half, tmp_path / "one")
    assert train_together(half, [tmp_path / "two"] * 2) == [(0, "")] * 2
    require_near(tmp_path / "one", tmp_path / "two", WEIGHTS, rtol=0.05, atol=2e-3, losses=0.01)


def test_a_folder_that_is_not_shared_is_refused(points_config: TrainConfig, tmp_path: Path) -> None:
    """One machine finds the run, and another finds nothing."""
    run(points_config, tmp_path / "one", "run.steps=2")
    folders = [tmp_path / "one", tmp_path / "other"]
    for code, said in train_together(points_config, folders, "run.steps=4"):
        assert code == 2
        assert "would go on from different steps: 2, 0" in said


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment without what a launcher sets."""
    for name in (*LAUNCHER, "MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_accelerate_that_starts_one_of_several_is_refused(launched: pytest.MonkeyPatch) -> None:
    """As `accelerate launch --cpu --num_processes 2` does."""
    launched.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert join("no").num_processes == 1
    launched.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(UsageError, match="asked for several processes, and started one"):
        join("no")


def test_a_precision_that_would_be_ignored_is_refused(launched: pytest.MonkeyPatch) -> None:
    launched.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert join("bf16").num_processes == 1
    with pytest.raises(UsageError, match=r"asks for bf16, .* for run\.precision no"):
        join("no")


def test_processes_that_would_train_alone_are_refused(launched: pytest.MonkeyPatch) -> None:
    """As on a Mac, whose GPU has no way to talk to others."""
    launched.setenv("WORLD_SIZE", "2")
    launched.setattr(torch.accelerator, "is_available", lambda: True)
    with pytest.raises(UsageError, match="2 processes were started, and each would train alone"):
        join("no")


@pytest.mark.parametrize(("slowest", "steps"), [(1e-4, 10_000), (0.25, 4), (0.6, 1), (40.0, 1)])
def test_a_vote_comes_about_once_a_second(slowest: float, steps: int) -> None:
    """Whatever this process measures, all vote at the pace of the slowest."""
    ballots = torch.tensor([[0.0, 1e-9], [0.0, slowest]], dtype=torch.float64)
    asked = []

    def gather(ballot: torch.Tensor) -> torch.Tensor:
        asked.append(ballot)
        return ballots

    accelerator = SimpleNamespace(num_processes=2, device="cpu", gather=gather)
    vote = Vote(accelerator, 7)  # type: ignore[arg-type]
    assert not vote.stops(8, False)
    for step in range(9, 8 + steps):
        assert not vote.stops(step, True)
    assert len(asked) == 1
    ballots[1, 0] = 1.0
    assert vote.stops(8 + steps, False)
    assert len(asked) == 2
