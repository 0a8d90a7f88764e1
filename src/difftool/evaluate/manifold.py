"""Measure fidelity, samples near the data, and diversity, data near the samples.

A set fills the region of its balls. Around each vector there is a ball that just reaches its k-th
nearest neighbour in the same set.
"""

from typing import Final, NamedTuple

import numpy as np

from difftool.errors import UsageError
from difftool.evaluate.distances import Floats, blocks, squared_distances

NEIGHBOURS: Final = 5  # k


class Manifold(NamedTuple):
    """Four shares in 0 .. 1; only density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def compare_manifolds(samples: Floats, data: Floats, *, k: int = NEIGHBOURS) -> Manifold:
    """Return precision, recall, density and coverage of samples [N, D] against data [M, D].

    - precision: the share of samples within some ball of the data; recall: the share of data within
      some ball of the samples (Kynkaanniemi et al. 2019, eqs. 1 and 2)
    - density: the mean number of the data's balls around a sample, divided by k; coverage: the
      share of the data's balls that hold a sample (Naeem et al. 2020, eqs. 3 and 4)

    They depend on N and M, so compare only figures with equal N and M. UsageError if N or M is not
    greater than k.
    """
    if k < 1 or min(len(samples), len(data)) <= k:
        raise UsageError(
            f"{len(samples)} and {len(data)} vectors have no {k} neighbours each",
            f"compare more than {k} of each",
        )
    sample_radii, data_radii = _radii(samples, k), _radii(data, k)
    held = np.zeros(len(samples), np.int64)  # the number of the data's balls around each sample
    recalled = covered = 0
    first = 0
    for part in blocks(data, len(samples)):
        distances = squared_distances(part, samples)
        inside = distances <= data_radii[first : first + len(part), None]
        held += inside.sum(0)
        covered += int(inside.any(1).sum())
        recalled += int((distances <= sample_radii).any(1).sum())
        first += len(part)
    return Manifold(
        precision=float((held > 0).mean()),
        recall=recalled / len(data),
        density=float(held.mean() / k),
        coverage=covered / len(data),
    )


def _radii(x: Floats, k: int) -> Floats:
    """Return the squared distance of each of x [N, D] to its k-th nearest neighbour."""
    # Each vector is its own nearest, at index 0, so the k-th neighbour has index k.
    parts = [
        np.partition(squared_distances(part, x), k, axis=1)[:, k] for part in blocks(x, len(x))
    ]
    return np.concatenate(parts)
