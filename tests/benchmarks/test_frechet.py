"""The Frechet distance against closed forms and scipy's general matrix root."""

import numpy as np
import pytest
from _frechet import Gaussian, frechet_distance, gaussian_of
from scipy.linalg import sqrtm


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
    found = gaussian_of(features)
    assert found.mean.tolist() == [1, 1]
    assert found.covariance.dtype == np.float64
    np.testing.assert_allclose(found.covariance, [[1, 0], [0, 3]])
