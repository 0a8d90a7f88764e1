"""Timestep spacings against their definitions, written out."""

import numpy as np
import pytest

from difftool.diffusion import schedules
from difftool.diffusion.spacing import transitions, visited
from difftool.errors import UsageError

LINEAR = schedules.linear()
GEOMETRIC = schedules.geometric(levels=10, sigma_min=0.01, sigma_max=1)


def test_whole_spacings_are_the_known_timesteps() -> None:
    assert visited(LINEAR, 4) == [999, 666, 333, 0]
    assert visited(LINEAR, 4, "leading") == [750, 500, 250, 0]
    assert visited(LINEAR, 4, "trailing") == [999, 749, 499, 249]
    assert visited(LINEAR, 3, "trailing") == [999, 666, 332]


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_every_step_is_every_level(spacing: str) -> None:
    assert visited(LINEAR, 1000, spacing) == list(range(999, -1, -1))


@pytest.mark.parametrize("steps", [10, 20, 50, 100])
def test_quadratic_is_ddims_for_cifar(steps: int) -> None:
    """It ends at 0.8 T. Its first indices repeat; there DDIM's step changes nothing."""
    sequence = [int(root**2) for root in np.linspace(0, np.sqrt(1000 * 0.8), steps)]
    assert visited(LINEAR, steps, "quadratic") == sorted(set(sequence), reverse=True)
    assert sequence[-1] == 800


def test_half_log_snr_is_even() -> None:
    half_log_snr = _half_log_snr(LINEAR, visited(LINEAR, 17, "half_log_snr"))
    assert np.diff(half_log_snr) == pytest.approx(np.full(16, np.ptp(half_log_snr) / 16))
    assert visited(GEOMETRIC, 10, "half_log_snr") == list(range(9, -1, -1))


@pytest.mark.parametrize("schedule", [LINEAR, GEOMETRIC], ids=str)
def test_karras_is_edms_discretization(schedule: schedules.NoiseSchedule) -> None:
    levels = visited(schedule, 18, "karras")
    ratio = np.exp(-_half_log_snr(schedule, levels))
    largest, least = (schedule.sigma / schedule.alpha)[[-1, 0]]
    for i in range(18):
        root = largest ** (1 / 7) + i / 17 * (least ** (1 / 7) - largest ** (1 / 7))
        assert ratio[i] == pytest.approx(root**7, rel=1e-12)
    assert (levels[0], levels[-1]) == (len(schedule) - 1, 0)


@pytest.mark.parametrize(
    "spacing", ["linspace", "leading", "trailing", "quadratic", "half_log_snr", "karras"]
)
def test_one_step_is_the_noisiest_level(spacing: str) -> None:
    assert visited(LINEAR, 1, spacing) == [999]


def test_transitions_end_at_the_clean_sample() -> None:
    assert transitions([9.0, 4.5, 0.0]) == [(9.0, 4.5), (4.5, 0.0), (0.0, None)]


@pytest.mark.parametrize(
    ("steps", "spacing", "message"),
    [
        (0, "linspace", "0 steps"),
        (11, "trailing", "11 steps on a schedule of 10 levels"),
        (100_001, "karras", "100001 steps"),
        (5, "even", "unknown spacing 'even'"),
    ],
)
def test_what_cannot_be_is_refused(steps: int, spacing: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        visited(GEOMETRIC, steps, spacing)


def _half_log_snr(schedule: schedules.NoiseSchedule, levels: list[float]) -> np.ndarray:
    alpha, sigma = schedule.at(levels)
    return np.log(alpha / sigma)
