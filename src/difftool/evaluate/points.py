"""Distances between two sets of points in the plane; they need no features."""

from typing import Final

import numpy as np

from difftool.evaluate.distances import Floats, mmd_squared, squared_distances

_DIRECTIONS: Final = 180  # a degree apart
_MOST_FOR_MEDIAN: Final = 1000


def sliced_wasserstein(x: Floats, y: Floats) -> float:
    """Return the sliced 2-Wasserstein distance of points (Bonneel et al. 2015, eq. 8).

    The points are [N, 2] and [M, 2]. It is the root of the mean, over directions, of the squared
    2-Wasserstein distance of their projections. In the plane evenly spaced directions take the
    place of random ones. It has the points' unit.
    """
    angles = np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    directions = np.stack((np.cos(angles), np.sin(angles)))
    projected, other = np.sort(x @ directions, axis=0), np.sort(y @ directions, axis=0)
    # The quantile functions have steps at multiples of 1/N and of 1/M; `ends` counts in 1/(N M).
    n, m = len(x), len(y)
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    weights = np.diff(ends, prepend=0) / (n * m)
    gaps = projected[(ends - 1) // m] - other[(ends - 1) // n]
    return float(np.sqrt((weights @ np.square(gaps)).mean()))


def mmd(x: Floats, y: Floats) -> float:
    """Return the unbiased squared MMD of points with the kernel exp(-|x - y|^2 / (2 h^2)).

    The points are [N, 2] and [M, 2]. h is the median distance of two points of y (Gretton et al.
    2012, section 8), so it does not depend on the samples. The result may fall below 0.
    """
    some = y[:: -(-len(y) // _MOST_FOR_MEDIAN)]
    above = np.triu_indices(len(some), 1)
    width = float(np.median(squared_distances(some, some)[above])) or 1.0
    return mmd_squared(x, y, lambda a, b: np.exp(squared_distances(a, b) / (-2 * width)))
