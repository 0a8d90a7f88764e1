"""A training that cannot work is refused before anything is made; any other is left alone."""

from pathlib import Path

import pytest
import torch

from difftool.errors import ResourceError, UsageError
from difftool.train.config import TrainConfig, apply_overrides, model_spec, network_call
from difftool.train.data import Data
from difftool.train.rehearsal import rehearse
from difftool.train.state import TrainState
from tests.train.conftest import run


def rehearsed(config: TrainConfig, items: torch.Tensor, *overrides: str) -> None:
    """Rehearse a training on these items."""
    config, data = apply_overrides(config, overrides), Data(items)
    spec = model_spec(config, data.shape)
    rehearse(config, spec, network_call(config, spec), data)


def images(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.zeros(3, channels, height, width, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("override", "items", "message"),
    [
        ("network.arguments.multipliers=[1, 1]", images(1, 7, 8), r"samples of \[1, 7, 8\]"),
        ("network.arguments.multipliers=[1, 1, 1]", images(1, 6, 6), r"samples of \[1, 6, 6\]"),
        ("network.arguments.multipliers=[1, 1, 1, 1]", images(1, 4, 4), r"samples of \[1, 4, 4\]"),
        ("data.flip=false", torch.zeros(3, 2), r"samples of \[2\].*network mlp"),
        ("network.arguments.dropout=2", images(1, 8, 8), "cannot be made: dropout"),
        ('network.arguments.blocks="x"', images(1, 8, 8), "blocks is 'x'.*type int"),
        ("network.arguments.blocks=true", images(1, 8, 8), "blocks is True.*type int"),
        ("network.arguments.multipliers=5", images(1, 8, 8), "multipliers is 5.*list of float"),
        ("network.arguments.blocks=9223372036854775807", images(1, 8, 8), "at most 100"),
        ("network.arguments.out_channels=1", images(3, 8, 8), r"makes \[1, 8, 8\] of"),
        ("network.arguments.channels=4000000000", images(1, 8, 8), "cannot be made"),
    ],
)
def test_what_does_not_fit_is_a_usage_error(
    override: str, items: torch.Tensor, message: str, images_config: TrainConfig
) -> None:
    with pytest.raises(UsageError, match=message):
        rehearsed(images_config, items, override)


@pytest.mark.parametrize(
    "override", ["network.arguments.channels=200000", "run.batch=2000000000000"]
)
def test_what_memory_cannot_hold_is_not_begun(override: str, images_config: TrainConfig) -> None:
    with pytest.raises(ResourceError, match=r"needs \d+ GiB to train, of \d+"):
        rehearsed(images_config, images(1, 8, 8), override)


def test_memory_that_runs_out_in_a_step_is_said(
    points_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def advance(_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")

    monkeypatch.setattr(TrainState, "advance", advance)
    with pytest.raises(ResourceError, match="a batch of 8"):
        run(points_config, tmp_path)


@pytest.mark.parametrize("loss", ["denoising", "implicit", "sliced"])
def test_points_and_their_losses_fit(loss: str, points_config: TrainConfig) -> None:
    rehearsed(points_config, torch.zeros(3, 2), f"loss.kind={loss}")


def test_a_rehearsal_draws_nothing(images_config: TrainConfig) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    rehearsed(images_config, images(1, 8, 8))
    assert torch.equal(torch.rand(3), expected)
