"""Distances against closed forms, double loops and scipy's general matrix root."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy.linalg import sqrtm

from difftool.errors import UsageError
from difftool.evaluate import distances
from difftool.evaluate.distances import (
    Gaussian,
    fit_gaussian,
    frechet_distance,
    kernel_distance,
    mmd_squared,
    squared_distances,
)


def _random_gaussian(rng: np.random.Generator, size: int, rank: int) -> Gaussian:
    factor = rng.normal(size=(size, rank))
    return Gaussian(rng.normal(size=size), factor @ factor.T)


def test_diagonal_gaussians_have_a_closed_form() -> None:
    rng = np.random.default_rng(0)
    means, stds = rng.normal(size=(2, 5)), rng.uniform(0.1, 3, (2, 5))
    p, q = (Gaussian(mean, np.diag(std**2)) for mean, std in zip(means, stds, strict=True))
    expected = np.square(means[0] - means[1]).sum() + np.square(stds[0] - stds[1]).sum()
    assert frechet_distance(p, q) == pytest.approx(expected, rel=1e-12)


def test_the_general_case_agrees_with_a_matrix_root_of_the_product() -> None:
    rng = np.random.default_rng(1)
    p, q = (_random_gaussian(rng, 6, 6) for _ in range(2))
    cross = np.trace(sqrtm(p.covariance @ q.covariance)).real
    spread = np.trace(p.covariance) + np.trace(q.covariance) - 2 * cross
    expected = np.square(p.mean - q.mean).sum() + spread
    assert frechet_distance(p, q) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(q, p) == pytest.approx(expected, rel=1e-9)


def test_a_singular_gaussian_is_at_no_distance_from_itself() -> None:
    p = _random_gaussian(np.random.default_rng(2), 8, 3)
    assert frechet_distance(p, p) == pytest.approx(0, abs=1e-6)


def test_the_gaussian_of_features_has_their_unbiased_covariance() -> None:
    features = np.array([[0, 0], [2, 0], [1, 3]], np.float32)
    found = fit_gaussian(features)
    assert found.mean.tolist() == [1, 1]
    assert found.covariance.dtype == np.float64
    np.testing.assert_allclose(found.covariance, [[1, 0], [0, 3]])


def test_the_gaussian_of_single_numbers_is_one_too() -> None:
    found = fit_gaussian(np.array([[1.0], [3.0]]))
    distance = frechet_distance(found, Gaussian(np.zeros(1), np.eye(1)))
    assert distance == pytest.approx(4 + (np.sqrt(2) - 1) ** 2)


def _naive_kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((sum(a * b) / len(a) + 1) ** 3)

    xx, yy = (np.mean([kernel(a, b) for a, b in permutations(z, 2)]) for z in (x, y))
    return float(xx + yy - 2 * np.mean([kernel(a, b) for a, b in product(x, y)]))


@pytest.mark.parametrize("block", [1, 1 << 22])
def test_kernel_distance_is_a_sum_over_pairs(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BLOCK", block)
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(7, 4)), rng.normal(0.5, 1.5, size=(9, 4))
    expected = _naive_kernel_distance(x, y)
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(y, x) == pytest.approx(expected, rel=1e-12)


def test_mmd_with_a_linear_kernel_is_the_distance_of_means_without_bias() -> None:
    rng = np.random.default_rng(4)
    shift = np.array([0.3, 0.0, -0.4])
    found = []
    for _ in range(400):
        x, y = rng.normal(size=(20, 3)), rng.normal(size=(30, 3)) + shift
        found.append(mmd_squared(x, y, lambda a, b: a @ b.T))
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(0.25, abs=4 * error)
    assert error < 0.03
    assert min(found) < 0  # a biased estimate could not be


def test_squared_distances_are_never_negative() -> None:
    x = np.random.default_rng(5).normal(size=(50, 64)) * 1e4
    found = squared_distances(x, x)
    assert found.min() >= 0
    np.testing.assert_allclose(found, np.square(x[:, None] - x).sum(2), rtol=1e-9, atol=1e-4)


def test_one_vector_has_no_spread() -> None:
    one, two = np.zeros((1, 3)), np.zeros((2, 3))
    with pytest.raises(UsageError, match="set of 1"):
        fit_gaussian(one)
    with pytest.raises(UsageError, match="set of 1"):
        kernel_distance(two, one)
