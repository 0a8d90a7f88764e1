"""Frechet distance to data before and after: of the reference's samples, and of the candidate's."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import Bundle
from difftool.diffusion.program import Program
from difftool.evaluate.distances import frechet_distance, gaussian_of
from difftool.runtime.model import Model
from difftool.verify.sides import Side

Features = Callable[[NDArray[np.float32]], NDArray[np.floating]]


def frechet_distances(
    bundle: Bundle,
    sides: tuple[Side, Side],
    program: Program,
    data: NDArray[np.floating],
    features: Features,
    *,
    n: int,
    seed: int = 0,
    on_step: Callable[[], None] | None = None,
) -> tuple[float, float]:
    """The distance of each side's n samples to data, both as features [N, F].

    `features` makes them of samples float32 [n, *S]. The sides draw with the same noise. UsageError
    if n, or the data, are less than 2.
    """
    wanted = gaussian_of(data)

    def distance(side: Side) -> float:
        model = Model(bundle, side.backend)
        samples = model.sample(
            program, n=n, seed=seed, on_step=None if on_step is None else lambda _: on_step()
        )
        return frechet_distance(gaussian_of(features(samples)), wanted)

    first, second = sides
    return distance(first), distance(second)
