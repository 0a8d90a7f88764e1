"""Compute the score of any model at any points, with a program of one row."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.diffusion.builder import ProgramBuilder
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.runtime.protocols import Backend

Array = NDArray[np.floating]


def score(
    backend: Backend, spec: ModelSpec, level: float, points: ArrayLike, *, label: int | None = None
) -> Array:
    """Return the score (alpha * D - x) / sigma^2 at `points` [N, *S] with `level`'s noise; [N, *S].

    `level` is a schedule index, which may be fractional; 0 has the least noise. D is not clipped.
    The backend decides the precision: float32, or float64 on the reference. `label` is a class, by
    default the null label.

    Raises:
        UsageError: the network knows no levels between its own, or not this label.
    """
    x = np.asarray(points)
    labels = None if label is None else Labels(np.full(len(x), label))
    batch = backend.batch(score_program(spec, level), len(x), labels)
    batch.start(x)
    batch.step(None)
    return batch.x.copy()


def score_program(spec: ModelSpec, level: float) -> Program:
    """Make a program of one row that replaces x by the score at x.

    With D = c_skip * x + c_out * F the score is a * x + g * F. This form does not divide the
    difference of two nearly equal numbers by a small sigma^2.
    """
    alpha, sigma = (float(value) for value in spec.schedule.at(level))
    _, c_skip, c_out = (float(value) for value in spec.coefficients(level))
    builder = ProgramBuilder(spec, clip=False)
    a, g = (alpha * c_skip - 1) / sigma**2, alpha * c_out / sigma**2
    builder.row(level, level, a=a, b=0.0, g=g)
    return builder.build(exact_noise=False)
