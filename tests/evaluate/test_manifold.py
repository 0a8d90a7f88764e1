"""Precision, recall, density and coverage, as their papers define them."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from difftool.errors import UsageError
from difftool.evaluate import distances
from difftool.evaluate.manifold import Manifold, compare_manifolds


def _naive(samples: np.ndarray, data: np.ndarray, k: int) -> Manifold:
    """The definitions, one ball and one vector at a time; radii by scikit-learn."""

    def balls(x: np.ndarray) -> list[tuple[np.ndarray, float]]:
        found, _ = NearestNeighbors(n_neighbors=k).fit(x).kneighbors()  # without itself
        return list(zip(x, found[:, -1], strict=True))

    def holds(ball: tuple[np.ndarray, float], vector: np.ndarray) -> bool:
        centre, radius = ball
        return bool(np.linalg.norm(centre - vector) <= radius)

    data_balls, sample_balls = balls(data), balls(samples)
    counts = [sum(holds(ball, sample) for ball in data_balls) for sample in samples]
    return Manifold(
        precision=np.mean([count > 0 for count in counts]),
        recall=np.mean([any(holds(ball, item) for ball in sample_balls) for item in data]),
        density=np.mean(counts) / k,
        coverage=np.mean([any(holds(ball, sample) for sample in samples) for ball in data_balls]),
    )


@pytest.mark.parametrize(("n", "m", "k"), [(40, 40, 5), (25, 60, 3), (60, 25, 1)])
@pytest.mark.parametrize("block", [1, 1 << 22])
def test_the_figures_are_those_of_the_definitions(
    n: int, m: int, k: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "BLOCK", block)
    rng = np.random.default_rng(n)
    samples, data = rng.normal(1.5, 1, (n, 3)), rng.normal(0, 1.2, (m, 3))
    found = compare_manifolds(samples, data, k=k)
    assert found == pytest.approx(_naive(samples, data, k), rel=1e-12)
    assert 0 < found.precision < 1
    assert 0 < found.recall < 1


def test_data_that_are_repeated_lose_coverage_but_no_precision() -> None:
    data = np.random.default_rng(1).normal(size=(100, 2))
    found = compare_manifolds(np.repeat(data[:5], 20, axis=0), data)
    assert found.precision == 1
    assert found.recall == 0.05  # balls of radius 0
    assert found.coverage < 0.5


def test_samples_from_far_away_have_nothing() -> None:
    rng = np.random.default_rng(2)
    data = rng.normal(size=(50, 2))
    assert compare_manifolds(rng.normal(100, 1, (50, 2)), data) == Manifold(0, 0, 0, 0)


def test_density_of_the_data_s_own_distribution_is_about_one() -> None:
    rng = np.random.default_rng(3)
    found = compare_manifolds(rng.normal(size=(2000, 2)), rng.normal(size=(2000, 2)))
    assert found.density == pytest.approx(1, abs=0.05)
    assert found.coverage == pytest.approx(1 - 0.5**5, abs=0.03)  # Naeem et al. 2020, lemma 2


def test_too_few_vectors_have_no_neighbours() -> None:
    with pytest.raises(UsageError, match="no 5 neighbours"):
        compare_manifolds(np.zeros((5, 2)), np.zeros((9, 2)))
