"""NCSNv2's techniques against the values that its authors chose."""

import math

import pytest
import torch

from difftool.errors import UsageError
from difftool.train import ncsnv2
from difftool.train.config import TrainConfig, apply_overrides
from difftool.train.data import Data
from difftool.train.presets import preset

CIFAR10 = 3 * 32 * 32
AUTO = [
    "schedule.sigma_max=auto",
    "schedule.levels=auto",
    "sampler.arguments.steps=auto",
    "sampler.arguments.step_size=auto",
]


def test_levels_of_cifar10() -> None:
    ratio = (50 / 0.01) ** (1 / 231)
    assert ratio == pytest.approx(1.03756, abs=1e-5)
    assert ncsnv2.overlap(ratio, CIFAR10) == pytest.approx(0.567, abs=1e-3)
    assert ncsnv2.overlap(ncsnv2.level_ratio(CIFAR10), CIFAR10) == pytest.approx(0.5, abs=1e-9)
    # The published 232 levels overlap a little more than the rule asks for.
    assert ncsnv2.level_count(CIFAR10, 50, 0.01) == pytest.approx(232, rel=0.1)
    assert ncsnv2.overlap(100 ** (1 / 9), CIFAR10) == pytest.approx(0, abs=1e-6)  # NCSN's ten


def test_step_size_of_cifar10() -> None:
    ratio = (50 / 0.01) ** (1 / 231)
    assert ncsnv2.final_variance(6.2e-6 / 0.01**2, ratio, 5) == pytest.approx(1.0555, abs=1e-4)
    original = ncsnv2.final_variance(2e-5 / 0.01**2, 100 ** (1 / 9), 100)
    assert original == pytest.approx(1.1111, abs=1e-4)
    assert ncsnv2.step_size(ratio, 5, 0.01) == pytest.approx(6.2e-6, rel=0.02)


def test_final_variance_is_that_of_the_recurrence() -> None:
    rate, ratio, variance = 0.03, 1.1, 1.1**2
    for _ in range(7):  # x <- (1 - rate) x + sqrt(2 rate) z, from a score of -x
        variance = (1 - rate) ** 2 * variance + 2 * rate
    assert ncsnv2.final_variance(rate, ratio, 7) == pytest.approx(variance)


def test_largest_distance() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    assert ncsnv2.largest_distance(points) == pytest.approx(5)
    images = torch.zeros(600, 1, 2, 2, dtype=torch.uint8)
    images[599] = 255
    assert ncsnv2.largest_distance(images) == pytest.approx(2)


def test_auto_becomes_numbers(points_config: TrainConfig) -> None:
    data = Data(torch.tensor([[0.0] * 64, [30.0, 40.0] + [0.0] * 62]))
    config = ncsnv2.resolve(apply_overrides(points_config, AUTO), data)
    schedule, sampler = config.schedule, config.sampler.arguments
    assert schedule["sigma_max"] == pytest.approx(50)
    ratio = (50 / 0.1) ** (1 / (schedule["levels"] - 1))
    assert ncsnv2.overlap(ratio, 64) == pytest.approx(0.5, abs=0.1)
    assert sampler["steps"] % schedule["levels"] == 0
    assert sampler["steps"] >= 1000
    each = sampler["steps"] // schedule["levels"]
    end = ncsnv2.final_variance(sampler["step_size"] / 0.1**2, ratio, each)
    assert end == pytest.approx(1, abs=0.2)
    assert math.isfinite(sampler["step_size"])
    assert ncsnv2.resolve(config, data) == config


def test_auto_needs_what_it_can_choose_for(images_config: TrainConfig) -> None:
    config = apply_overrides(images_config, ["schedule.steps=auto"])
    with pytest.raises(UsageError, match="geometric"):
        ncsnv2.resolve(config, Data(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)))
    wide = ["schedule.sigma_max=1e200", "schedule.sigma_min=1e-200", "schedule.levels=auto"]
    with pytest.raises(UsageError, match='no levels "auto" lead from sigma'):
        ncsnv2.resolve(
            apply_overrides(preset("ncsnv2-cifar10"), wide),
            Data(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)),
        )
    with pytest.raises(UsageError, match=r"2 dimensions.*schedule\.levels"):
        ncsnv2.level_count(2, 50, 0.01)
