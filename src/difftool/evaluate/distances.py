"""Distances between two sets of vectors: Frechet's, and the maximum mean discrepancy."""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from difftool.errors import UsageError

Floats = NDArray[np.float64]
Kernel = Callable[[Floats, Floats], Floats]  # (x [N, D], y [M, D]) -> [N, M]

BLOCK: Final = 1 << 22  # numbers of a matrix [N, M] in memory at once


class Gaussian(NamedTuple):
    """A Gaussian's mean [D] and covariance [D, D]."""

    mean: Floats
    covariance: Floats


def fit_gaussian(features: NDArray[np.floating]) -> Gaussian:
    """Fit a Gaussian to features [N, D], in float64, with the unbiased covariance."""
    _demand_two(features)
    values = features.astype(np.float64)
    return Gaussian(values.mean(0), np.atleast_2d(np.cov(values, rowvar=False)))


def frechet_distance(p: Gaussian, q: Gaussian) -> float:
    """Return the squared Frechet distance of two Gaussians (Heusel et al. 2017, eq. 6).

    It is |mean_p - mean_q|^2 + tr(C_p + C_q - 2 (C_p C_q)^(1/2)). The root has the same trace as
    (R C_q R)^(1/2) with R = C_p^(1/2). That matrix is symmetric, so its eigenvalues are real and
    hardly fall below zero, even if C_p is singular.
    """
    root = _sqrt(p.covariance)
    eigenvalues = np.linalg.eigvalsh(root @ q.covariance @ root)
    cross = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    spread = np.trace(p.covariance) + np.trace(q.covariance) - 2 * cross
    return float(np.square(p.mean - q.mean).sum() + spread)


def kernel_distance(x: Floats, y: Floats) -> float:
    """Return the unbiased squared MMD of features [N, D] and [M, D] with kernel (x.y / D + 1)^3.

    It is KID (Binkowski et al. 2018, section 4), but of all features at once and not of subsets. It
    has no bias, so its mean does not depend on N and M, and it may fall below 0.
    """
    return mmd_squared(x, y, _cubic)


def mmd_squared(x: Floats, y: Floats, kernel: Kernel) -> float:
    """Return the unbiased squared maximum mean discrepancy of x [N, D] and y [M, D].

    See Gretton et al. 2012, lemma 6. UsageError if N or M is less than 2.
    """
    _demand_two(x)
    _demand_two(y)
    within = _mean_of_pairs(x, kernel) + _mean_of_pairs(y, kernel)
    between = sum(float(kernel(part, y).sum()) for part in blocks(x, len(y)))
    return within - 2 * between / (len(x) * len(y))


def squared_distances(x: Floats, y: Floats) -> Floats:
    """Return |x_i - y_j|^2 of x [N, D] and y [M, D]; [N, M]."""
    products = -2 * x @ y.T
    squares = np.square(x).sum(1)[:, None] + np.square(y).sum(1)
    distances: Floats = np.maximum(products + squares, 0)
    return distances


def blocks(x: Floats, columns: int) -> Iterator[Floats]:
    """Return an iterator of blocks of x's rows, so small that [rows, columns] fits into memory."""
    rows = max(1, BLOCK // columns)
    return (x[first : first + rows] for first in range(0, len(x), rows))


def _cubic(x: Floats, y: Floats) -> Floats:
    products: Floats = x @ y.T / x.shape[1] + 1
    return products * products * products  # numpy's ** takes several times as long


def _mean_of_pairs(x: Floats, kernel: Kernel) -> float:
    """Return the kernel's mean over the pairs of different vectors."""
    total = sum(float(kernel(part, x).sum()) for part in blocks(x, len(x)))
    # Unbiased: a vector is not paired with itself.
    itself = sum(float(kernel(row[None], row[None])[0, 0]) for row in x)
    return (total - itself) / (len(x) * (len(x) - 1))


def _sqrt(covariance: Floats) -> Floats:
    """Return the symmetric square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def _demand_two(x: NDArray[np.floating]) -> None:
    if len(x) < 2:
        raise UsageError(f"a set of {len(x)} has no spread", "compare at least 2 of each")
