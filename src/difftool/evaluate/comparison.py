"""Samples compared with data: every figure of a pair of sets, of images or of points."""

from dataclasses import dataclass

import numpy as np

from difftool.errors import UsageError
from difftool.evaluate.classifier import Classes, classes_of
from difftool.evaluate.distances import Floats, frechet_distance, gaussian_of, kernel_distance
from difftool.evaluate.extractor import View
from difftool.evaluate.manifold import Manifold, compare_manifolds
from difftool.evaluate.points import mmd, sliced_wasserstein


@dataclass(frozen=True, kw_only=True)
class ImageFigures:
    """`classes` are of the samples, None if the extractor gives no probabilities.

    `manifold` is of `manifold_n` samples and as many of the data.
    """

    frechet_distance: float
    kernel_distance: float
    manifold: Manifold
    manifold_n: int
    classes: Classes | None


@dataclass(frozen=True, kw_only=True)
class PointFigures:
    """`sliced_wasserstein` has the points' unit; `mmd` is the unbiased square."""

    sliced_wasserstein: float
    mmd: float


def compare_images(samples: View, data: View) -> ImageFigures:
    """Compare images as an extractor sees them; UsageError if there are too few."""
    n = min(len(samples.features), len(data.features))
    return ImageFigures(
        frechet_distance=frechet_distance(
            gaussian_of(samples.features), gaussian_of(data.features)
        ),
        kernel_distance=kernel_distance(samples.features, data.features),
        manifold=compare_manifolds(evenly(samples.features, n), evenly(data.features, n)),
        manifold_n=n,
        classes=None if samples.probabilities is None else classes_of(samples.probabilities),
    )


def compare_points(samples: Floats, data: Floats) -> PointFigures:
    """Compare points [N, 2] with points [M, 2]; UsageError if they are not in the plane."""
    for points in (samples, data):
        if points.ndim != 2 or points.shape[1] != 2:
            raise UsageError(
                f"samples of shape {points.shape[1:]} are neither images nor points in the plane",
                "compare images, or points of shape (2,)",
            )
    return PointFigures(
        sliced_wasserstein=sliced_wasserstein(samples, data), mmd=mmd(samples, data)
    )


def evenly(x: Floats, n: int) -> Floats:
    """n of x, evenly spaced, so that they stand for the whole even if it is sorted."""
    return x[np.arange(n) * len(x) // n]
