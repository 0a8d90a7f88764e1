"""The toy densities, by what can be counted in them."""

import numpy as np
import pytest

from difftool.data import toys

INDICES = np.arange(20_000)


@pytest.mark.parametrize("name", toys.TOYS)
def test_a_point_depends_on_its_index_only(name: str) -> None:
    points = toys.points(name, 5, INDICES[:100])
    assert points.shape == (100, 2)
    assert points.dtype == np.float32
    assert (toys.points(name, 5, np.array([40, 7])) == points[[40, 7]]).all()
    assert (toys.points(name, 6, INDICES[:100]) != points).any()
    assert np.abs(points).max() < 11


def test_gaussians_have_the_papers_weights() -> None:
    points = toys.points("gaussians", 0, INDICES)
    upper = points.sum(axis=1) > 0
    assert upper.mean() == pytest.approx(0.8, abs=0.01)
    assert points[upper].mean(axis=0) == pytest.approx([5, 5], abs=0.05)
    assert points[~upper].mean(axis=0) == pytest.approx([-5, -5], abs=0.1)
    assert points[upper].std(axis=0) == pytest.approx([1, 1], abs=0.03)


def test_checkerboard_fills_every_other_square() -> None:
    points = toys.points("checkerboard", 0, INDICES)
    column, row = np.floor(points[:, 0] / 2).astype(int), np.floor(points[:, 1] / 2).astype(int)
    counts = {
        (c, r): ((column == c) & (row == r)).sum() for c in range(-2, 2) for r in range(-2, 2)
    }
    filled = {square for square, count in counts.items() if count > 20_000 / 16}
    assert filled == {square for square in counts if sum(square) % 2 == 0}
    assert sum(counts[square] for square in filled) > 19_990


def test_rings_have_four_radii() -> None:
    radius = np.linalg.norm(toys.points("rings", 0, INDICES), axis=1)
    nearest = np.clip(np.rint(radius), 1, 4)
    assert np.bincount(nearest.astype(int))[1:] == pytest.approx([5000] * 4, rel=0.05)
    assert (radius - nearest).std() == pytest.approx(0.08, rel=0.1)


def test_swiss_roll_and_moons_are_curves() -> None:
    roll = toys.points("swiss_roll", 0, INDICES)
    radius = np.linalg.norm(roll, axis=1)
    turns = (np.arctan2(roll[:, 1], roll[:, 0]) / (2 * np.pi) - radius * 4.5 / 10) % 1
    assert np.minimum(turns, 1 - turns).mean() < 0.05
    moons = toys.points("moons", 0, INDICES)
    upper = np.linalg.norm(moons - (-1.5, -0.75), axis=1)
    lower = np.linalg.norm(moons - (1.5, 0.75), axis=1)
    assert np.minimum(abs(upper - 3), abs(lower - 3)).max() < 0.6
