"""Distances of points in the plane against closed forms, scipy and double loops."""

from collections.abc import Iterable
from itertools import combinations, product

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from difftool.evaluate.points import mmd, sliced_wasserstein


def test_a_shift_has_a_closed_form() -> None:
    x = np.random.default_rng(0).normal(size=(100, 2))
    found = sliced_wasserstein(x, x + np.array([3.0, 4.0]))
    assert found == pytest.approx(5 / np.sqrt(2), rel=1e-12)  # the mean of cos^2 is 1/2


def test_a_scaling_of_isotropic_points_has_a_closed_form() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40_000, 2)), 2.5 * rng.normal(size=(30_000, 2))
    assert sliced_wasserstein(x, y) == pytest.approx(1.5, rel=0.02)


def test_it_is_the_best_assignment_along_every_direction() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 30, 2))
    costs = []
    for angle in np.pi * np.arange(180) / 180:
        direction = np.array([np.cos(angle), np.sin(angle)])
        cost = np.square((x @ direction)[:, None] - y @ direction)
        costs.append(cost[linear_sum_assignment(cost)].mean())
    assert sliced_wasserstein(x, y) == pytest.approx(np.sqrt(np.mean(costs)), rel=1e-12)


def test_repeating_points_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(8, 2)), rng.normal(size=(12, 2))
    expected = sliced_wasserstein(np.repeat(x, 3, axis=0), np.repeat(y, 2, axis=0))
    assert sliced_wasserstein(x, y) == pytest.approx(expected, rel=1e-12)
    assert sliced_wasserstein(y, x) == pytest.approx(expected, rel=1e-12)


def test_mmd_is_a_sum_over_pairs_with_the_median_of_the_data_as_width() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(6, 2)), rng.normal(1, 2, size=(8, 2))
    width = np.median([np.square(a - b).sum() for a, b in combinations(y, 2)])

    def mean(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
        return float(np.mean([np.exp(-np.square(a - b).sum() / (2 * width)) for a, b in pairs]))

    expected = mean(combinations(x, 2)) + mean(combinations(y, 2)) - 2 * mean(product(x, y))
    assert mmd(x, y) == pytest.approx(expected, rel=1e-9)


def test_mmd_tells_distributions_apart() -> None:
    rng = np.random.default_rng(5)
    data = rng.normal(size=(2000, 2))
    assert abs(mmd(rng.normal(size=(1500, 2)), data)) < 1e-3
    assert mmd(rng.normal(size=(1500, 2)) * (1.5, 1), data) > 1e-2
