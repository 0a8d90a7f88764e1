"""The Frechet distance between two sets of features, each taken as a Gaussian."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Gaussian(NamedTuple):
    """Mean [D] and covariance [D, D]."""

    mean: Array
    covariance: Array


def gaussian_of(features: NDArray[np.floating]) -> Gaussian:
    """The Gaussian of features [N, D], in float64; the covariance is the unbiased one."""
    values = features.astype(np.float64)
    return Gaussian(values.mean(0), np.cov(values, rowvar=False))


def frechet_distance(p: Gaussian, q: Gaussian) -> float:
    """|mean_p - mean_q|^2 + tr(C_p + C_q - 2 (C_p C_q)^(1/2)) (Heusel et al. 2017, eq. 6).

    The trace of the root is that of (R C_q R)^(1/2) with R = C_p^(1/2), a symmetric matrix, whose
    eigenvalues are real and cannot fall far below zero, even where C_p is singular.
    """
    root = _sqrt(p.covariance)
    eigenvalues = np.linalg.eigvalsh(root @ q.covariance @ root)
    cross = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    spread = np.trace(p.covariance) + np.trace(q.covariance) - 2 * cross
    return float(np.square(p.mean - q.mean).sum() + spread)


def _sqrt(covariance: Array) -> Array:
    """The symmetric square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
