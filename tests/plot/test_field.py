"""The score field, against the score of a normal density and against a network itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import difftool
from difftool.diffusion.parameterization import PARAMETERIZATIONS
from difftool.diffusion.schedules import NoiseSchedule, geometric, linear
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.networks.trained import load_checkpoint
from difftool.plot import score
from difftool.runtime.backends.reference import Reference
from tests.oracles.analytic import gaussian_denoiser, make_network
from tests.oracles.plain_loops import Array

MEAN, VARIANCE = np.array([1.0, -2.0]), 0.5  # of the data
POINTS = np.random.default_rng(0).normal(scale=3.0, size=(50, 2))
SCHEDULES = {"VP": linear(steps=40), "VE": geometric(levels=40, sigma_min=1e-3, sigma_max=20.0)}
LEVELS = ModelSpec(shape=(2,), schedule=SCHEDULES["VE"], parameterization="score", cond="level")


@pytest.mark.parametrize("level", [0, 17, 39])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_score_of_normal_data_is_exact(
    schedule: NoiseSchedule, parameterization: str, level: int
) -> None:
    spec = ModelSpec(
        shape=(2,),
        schedule=schedule,
        parameterization=parameterization,
        cond="timestep",
        data_range=(-0.1, 0.1),  # D is not clipped to it
        learned_variance=parameterization == "epsilon",
    )
    exact = make_network(spec, gaussian_denoiser(MEAN, VARIANCE * np.eye(2)))

    def network(x: Array, cond: Array) -> Array:
        raw = exact(x, cond)
        return np.concatenate([raw, 0 * raw], axis=1) if spec.learned_variance else raw

    backend = Reference(network, (2,), learned_variance=spec.learned_variance)
    alpha, sigma = (float(value) for value in schedule.at(level))
    expected = -(POINTS - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)
    # The network's own numbers lose digits in D - x, which the smallest sigma^2 then magnifies.
    assert score(backend, spec, level, POINTS) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_a_bundles_score_is_its_networks(points_bundle: Path, points_checkpoint: Path) -> None:
    model, trained = difftool.load(points_bundle), load_checkpoint(points_checkpoint)
    for level, label in ((0, 4.0), (4, 0.0)):  # NCSN's labels count from the most noise
        cond = trained.network.condition(torch.tensor([label])).expand(len(POINTS), -1)
        raw = trained.network(torch.tensor(POINTS, dtype=torch.float32), cond).numpy()
        sigma = trained.spec.schedule.sigma[level]
        found = score(model.backend, model.spec, level, POINTS)
        assert found.shape == POINTS.shape
        assert found == pytest.approx(raw / sigma, rel=1e-4, abs=1e-4)


def test_a_label_is_fed_to_the_network() -> None:
    spec = replace(LEVELS, classes=3, null_label=True)
    backend = Reference(lambda x, cond, label: x + label[:, None], (2,), null_label=3)
    for label in (0, 2, 3):
        assert score(backend, spec, 7, POINTS, label=label) == pytest.approx(POINTS + label)


def test_a_network_of_labelled_levels_has_none_between() -> None:
    with pytest.raises(UsageError, match="none between"):
        score(Reference(lambda x, cond: x, (2,)), LEVELS, 3.5, POINTS)
