"""Noise schedules against the papers' formulas, written out."""

import math

import numpy as np
import pytest

from difftool.diffusion import schedules
from difftool.diffusion.schedules import NoiseSchedule, schedule_from_dict
from difftool.errors import UsageError

ALL = [
    schedules.linear(),
    schedules.scaled_linear(steps=100),
    schedules.cosine(steps=50),
    schedules.sigmoid(steps=50),
    schedules.from_betas([0.1, 0.2, 0.3]),
    schedules.geometric(levels=10, sigma_min=0.01, sigma_max=1),
    schedules.karras(levels=18, sigma_min=0.002, sigma_max=80),
    schedules.vp_sde(levels=30),
]


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_a_schedule_survives_its_dictionary(schedule: NoiseSchedule) -> None:
    again = schedule_from_dict(schedule.to_dict())
    assert np.array_equal(again.alpha, schedule.alpha)
    assert np.array_equal(again.sigma, schedule.sigma)
    assert (np.diff(schedule.half_log_snr) < 0).all()


def test_linear_is_the_ddpm_schedule() -> None:
    schedule = schedules.linear()
    alpha_bar = 1.0
    for t in range(1000):
        alpha_bar *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        assert schedule.alpha_bar[t] == pytest.approx(alpha_bar, rel=1e-12)
    assert schedule.variance_preserving


def test_cosine_is_nichol_and_dhariwals() -> None:
    def f(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    schedule = schedules.cosine(steps=100)
    for t in (0, 40, 98):
        assert schedule.alpha_bar[t] == pytest.approx(f((t + 1) / 100) / f(0), rel=1e-10)
    # The last beta would be 1; it is capped at 0.999.
    assert schedule.alpha_bar[99] == pytest.approx(schedule.alpha_bar[98] * 0.001, rel=1e-10)


def test_scaled_linear_has_evenly_spaced_root_betas() -> None:
    schedule = schedules.scaled_linear(steps=5, beta_start=0.01, beta_end=0.25)
    ratio = np.append(1.0, schedule.alpha_bar)
    assert np.sqrt(1 - ratio[1:] / ratio[:-1]) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_sigmoid_falls_symmetrically() -> None:
    schedule = schedules.sigmoid(steps=100)
    assert schedule.alpha_bar[49] == pytest.approx(0.5)
    assert schedule.alpha_bar[24] + schedule.alpha_bar[74] == pytest.approx(1)


def test_the_ncsn_levels_run_from_1_to_a_hundredth() -> None:
    schedule = schedules.geometric(levels=10, sigma_min=0.01, sigma_max=1)
    assert schedule.sigma[0] == pytest.approx(0.01)
    assert schedule.sigma[-1] == pytest.approx(1)
    assert schedule.sigma[1:] / schedule.sigma[:-1] == pytest.approx(np.full(9, 100 ** (1 / 9)))
    assert (schedule.alpha == 1).all()
    assert not schedule.variance_preserving


def test_karras_is_edms_discretization() -> None:
    schedule = schedules.karras(levels=18, sigma_min=0.002, sigma_max=80)
    for i in (0, 7, 17):  # EDM counts from the most noise
        root = 80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))
        assert schedule.sigma[17 - i] == pytest.approx(root**7)


def test_the_sdes_have_the_kernels_of_song() -> None:
    """Their signal is that of a drift of -beta / 2, integrated here in small steps."""
    vp, sub = (
        make(levels=10, beta_min=0.2, beta_max=9, time_min=0.1)
        for make in (schedules.vp_sde, schedules.sub_vp_sde)
    )
    for i, time in enumerate(np.linspace(0.1, 1, 10)):
        middles = (np.arange(1000) + 0.5) / 1000 * time
        integral = (0.2 + middles * (9 - 0.2)).mean() * time
        assert vp.alpha[i] == sub.alpha[i] == pytest.approx(math.exp(-integral / 2), rel=1e-9)
        assert vp.sigma[i] ** 2 == pytest.approx(1 - math.exp(-integral), rel=1e-9)
        assert sub.sigma[i] == pytest.approx(1 - math.exp(-integral), rel=1e-9)
    assert vp.variance_preserving
    assert not sub.variance_preserving
    assert schedule_from_dict(sub.to_dict()).sigma.tolist() == sub.sigma.tolist()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"kind": "vp_sde", "levels": 10, "time_min": 0}, "0 < time_min < 1"),
        ({"kind": "sub_vp_sde", "levels": 10, "beta_max": 0}, "0 < beta_min <= beta_max"),
        ({"kind": "quadratic"}, "unknown noise schedule 'quadratic'"),
        ({"steps": 10}, "unknown noise schedule None"),
        ({"kind": "linear", "step": 10}, "unexpected keyword argument 'step'"),
        ({"kind": "linear", "steps": 0}, "at least one level"),
        ({"kind": "linear", "steps": 10, "beta_end": 1.5}, "0 < beta < 1"),
        ({"kind": "geometric", "levels": 10, "sigma_min": -1, "sigma_max": 1}, "sigma_min"),
        ({"kind": "from_betas", "betas": ["a"]}, r"betas is \['a'\].*list of float"),
    ],
)
def test_what_makes_no_schedule_is_refused(value: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        schedule_from_dict(value)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_between_levels_half_log_snr_is_linear(schedule: NoiseSchedule) -> None:
    alpha, sigma = schedule.at([0, 1.25, 2])
    assert (alpha[0], sigma[0]) == (schedule.alpha[0], schedule.sigma[0])
    assert (alpha[2], sigma[2]) == (schedule.alpha[2], schedule.sigma[2])
    low, high = schedule.half_log_snr[1:3]
    assert math.log(alpha[1] / sigma[1]) == pytest.approx(0.75 * low + 0.25 * high, rel=1e-12)
    preserved = alpha[1] ** 2 + sigma[1] ** 2 if schedule.variance_preserving else alpha[1]
    assert preserved == pytest.approx(1, abs=1e-12)
    assert schedule.find(math.log(alpha[1] / sigma[1])) == pytest.approx(1.25)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_a_level_has_its_whole_index_and_the_ends_are_ends(schedule: NoiseSchedule) -> None:
    half_log_snr = schedule.half_log_snr
    assert schedule.find(half_log_snr).tolist() == list(range(len(schedule)))
    assert schedule.find([half_log_snr[0] + 1, half_log_snr[-1] - 1]).tolist() == [
        0,
        len(schedule) - 1,
    ]


def test_levels_are_looked_up_without_a_walk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A logarithm of a whole schedule is taken once, however many levels are asked for."""
    schedule = schedules.linear(steps=1000)
    whole = []
    log = np.log
    monkeypatch.setattr(np, "log", lambda x: whole.append(np.size(x)) or log(x))
    for index in np.linspace(0, 999, 200):
        schedule.at(index)
    assert sum(size == 1000 for size in whole) <= 2
