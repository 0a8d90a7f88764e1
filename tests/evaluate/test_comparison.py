"""All figures of a pair of sets."""

import numpy as np
import pytest

from difftool.errors import UsageError
from difftool.evaluate.classifier import Classes
from difftool.evaluate.comparison import compare_images, compare_points, evenly
from difftool.evaluate.extractor import View
from difftool.evaluate.manifold import compare_manifolds


def test_a_set_is_at_no_distance_from_itself() -> None:
    features = np.random.default_rng(0).normal(size=(50, 4))
    found = compare_images(View(features, np.eye(2)[np.arange(50) % 2]), View(features, None))
    assert found.frechet_distance == pytest.approx(0, abs=1e-9)
    assert found.manifold[:2] == (1, 1)
    assert found.manifold.coverage == 1
    assert found.classes == Classes(sure=1, confidence=1, shares=[0.5, 0.5])


def test_the_manifolds_have_as_many_of_each() -> None:
    rng = np.random.default_rng(1)
    few, many = rng.normal(size=(20, 3)), rng.normal(size=(60, 3))
    found = compare_images(View(few, None), View(many, None))
    assert found.manifold_n == 20
    assert found.manifold == compare_manifolds(few, many[::3])
    assert found.classes is None


def test_evenly_takes_all_of_a_sorted_set_s_parts() -> None:
    assert evenly(np.arange(10), 5).tolist() == [0, 2, 4, 6, 8]
    assert evenly(np.arange(10), 4).tolist() == [0, 2, 5, 7]
    assert evenly(np.arange(3), 3).tolist() == [0, 1, 2]


def test_points_are_compared_in_the_plane_only() -> None:
    points = np.random.default_rng(2).normal(size=(30, 2))
    found = compare_points(points, points + 1)
    assert found.sliced_wasserstein == pytest.approx(1)  # |(1, 1)| / sqrt(2)
    assert found.mmd > 0
    with pytest.raises(UsageError, match="neither images nor points"):
        compare_points(np.zeros((5, 3)), np.zeros((5, 3)))
