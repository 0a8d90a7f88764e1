"""Compare samples with data: all figures of two sets of images or of points."""

from dataclasses import dataclass

import numpy as np

from difftool.errors import UsageError
from difftool.evaluate.classifier import Classes, summarize_classes
from difftool.evaluate.distances import Floats, fit_gaussian, frechet_distance, kernel_distance
from difftool.evaluate.manifold import Manifold, compare_manifolds
from difftool.evaluate.points import mmd, sliced_wasserstein
from difftool.evaluate.views import View


@dataclass(frozen=True, kw_only=True)
class ImageFigures:
    """The figures of images.

    `classes` describes the samples, and is None if the extractor gives no probabilities. `manifold`
    is that of `manifold_n` samples and as many items of the data.
    """

    frechet_distance: float
    kernel_distance: float
    manifold: Manifold
    manifold_n: int
    classes: Classes | None


@dataclass(frozen=True, kw_only=True)
class PointFigures:
    """The figures of points; `sliced_wasserstein` has their unit, `mmd` is the unbiased square."""

    sliced_wasserstein: float
    mmd: float


def compare_images(samples: View, data: View) -> ImageFigures:
    """Compare images by an extractor's views of them; UsageError if there are too few."""
    n = min(len(samples.features), len(data.features))
    return ImageFigures(
        frechet_distance=frechet_distance(
            fit_gaussian(samples.features), fit_gaussian(data.features)
        ),
        kernel_distance=kernel_distance(samples.features, data.features),
        manifold=compare_manifolds(evenly(samples.features, n), evenly(data.features, n)),
        manifold_n=n,
        classes=None if samples.probabilities is None else summarize_classes(samples.probabilities),
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
    """Return n of x, evenly spaced, so that they represent all of x even if it is sorted."""
    return x[np.arange(n) * len(x) // n]
