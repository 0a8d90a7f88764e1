"""Parameterizations and the model spec."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from difftool.diffusion import schedules
from difftool.diffusion.parameterization import PARAMETERIZATIONS, coefficients
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from tests.oracles.analytic import VE, VP

SCHEDULES = {
    "vp": schedules.linear(),
    "ve": schedules.karras(levels=30, sigma_min=0.002, sigma_max=80),
}


def true_output(kind: str, x0: float, noise: float, alpha: float, sigma: float) -> float:
    """Return the output of a network of this parameterization that knows x0 and noise."""
    x = alpha * x0 + sigma * noise
    score = (alpha * x0 - x) / sigma**2
    ratio, sigma_data = sigma / alpha, 0.5
    total = ratio**2 + sigma_data**2
    return {
        "epsilon": noise,
        "x0": x0,
        "v": alpha * noise - sigma * x0,
        "score": score,
        "scaled_score": sigma * score,
        # Karras et al. 2022, eq. 8: the effective target of F
        "edm": (x0 - sigma_data**2 / total * x / alpha) * np.sqrt(total) / (ratio * sigma_data),
    }[kind]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("kind", PARAMETERIZATIONS)
def test_the_true_output_denoises_exactly(kind: str, schedule: schedules.NoiseSchedule) -> None:
    x0, noise = 0.7, -1.3
    _, c_skip, c_out = coefficients(kind, schedule.alpha, schedule.sigma)
    for i in (0, len(schedule) // 2, len(schedule) - 1):
        alpha, sigma = schedule.alpha[i], schedule.sigma[i]
        output = true_output(kind, x0, noise, alpha, sigma)
        denoised = c_skip[i] * (alpha * x0 + sigma * noise) + c_out[i] * output
        assert denoised == pytest.approx(x0, abs=1e-9)


def test_edm_feeds_its_network_unit_variance() -> None:
    schedule = SCHEDULES["ve"]
    c_in = coefficients("edm", schedule.alpha, schedule.sigma, sigma_data=0.5).c_in
    assert c_in**2 * (schedule.sigma**2 + 0.25) == pytest.approx(np.ones(30))


def spec(**changes: object) -> ModelSpec:
    return replace(VE, **changes)  # type: ignore[arg-type]


def test_a_spec_survives_its_dictionary() -> None:
    original = spec(learned_variance=True, timestep_scale=0.5)
    assert ModelSpec.from_dict(original.to_dict()).to_dict() == original.to_dict()


def test_cond_is_what_the_network_was_trained_on() -> None:
    assert spec().conds([9, 0]).tolist() == [0, 9]  # NCSN counts from the most noise
    assert spec(cond="timestep", timestep_scale=2.0).conds([3]).tolist() == [6]
    late = spec(cond="timestep", timestep_scale=2.0, timestep_start=0.5)
    assert late.conds([0, 3]).tolist() == [0.5, 6.5]
    assert spec(cond="quarter_log_sigma").conds([9]) == pytest.approx(0.0)


def test_between_levels_cond_is_interpolated() -> None:
    assert spec(cond="timestep", timestep_scale=2.0).conds([3.25]).tolist() == [6.5]
    assert spec(parameterization="scaled_score").conds([0.5]).tolist() == [8.5]
    between = spec(cond="quarter_log_sigma").conds([8.5, 8, 9])
    assert between[0] == pytest.approx((between[1] + between[2]) / 2)
    with pytest.raises(UsageError, match="knows its 10 noise levels and none between"):
        spec().conds([0.5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [0]}, "no elements"),
        ({"shape": None}, "lacks or mistypes"),
        ({"parameterization": "noise"}, "unknown parameterization 'noise'"),
        ({"cond": "time"}, "unknown cond 'time'"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"data_range": [1]}, "lacks or mistypes"),
    ],
)
def test_a_wrong_dictionary_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ModelSpec.from_dict({**spec().to_dict(), **change})


@pytest.mark.parametrize(
    "wrong",
    [
        {"data_range": (1.0, -1.0)},
        {"data_range": (0.0, 0.0)},
        {"data_range": (0.0, math.inf)},
        {"data_range": (math.nan, 1.0)},
        {"data_range": (0.0, 1e-320)},
        {"data_range": (-1e308, 1e308)},
        {"sigma_data": 0.0},
        {"sigma_data": -0.5},
        {"sigma_data": math.nan},
        {"sigma_data": 1e308},
        {"classes": 2**63},
        {"classes": 10**400},
        {"timestep_scale": 0.0},
        {"timestep_scale": 1e308},
        {"timestep_scale": math.inf},
        {"timestep_start": math.nan},
    ],
    ids=lambda wrong: " ".join(f"{name} {value!s:.20}" for name, value in wrong.items()),
)
def test_numbers_that_make_no_model_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=min(wrong) if "time" not in min(wrong) else "timesteps"):
        replace(VP, **wrong)


@pytest.mark.parametrize("pair", [[0], [0, 1, 2], ["0", "1"], [False, True], "01", {"0": 1}, 5])
def test_a_data_range_is_two_numbers(pair: object) -> None:
    with pytest.raises(UsageError, match="data_range"):
        ModelSpec.from_dict({**VP.to_dict(), "data_range": pair})
