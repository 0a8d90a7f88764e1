"""The Frechet distance to data of the reference's samples and of the candidate's."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import Bundle
from difftool.diffusion.program import Program
from difftool.evaluate.distances import fit_gaussian, frechet_distance
from difftool.evaluate.extractor import open_extractor
from difftool.evaluate.sets import read_data
from difftool.runtime.images import is_image, to_uint8
from difftool.runtime.model import Model
from difftool.verify.sides import Side

Features = Callable[[NDArray[np.float32]], NDArray[np.floating]]


@dataclass(frozen=True)
class Frechet:
    """Distances to data of n samples: `before` for the reference, `after` for the candidate.

    Images are compared in the features of an extractor, points as they are.
    """

    data: str
    n: int
    extractor: str | None
    extractor_sha256: str | None
    before: float
    after: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them; points have no extractor."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class FrechetData:
    """Data to compare a bundle's samples with. It is read before any sample is drawn.

    Raises:
        UsageError: data, samples and extractor do not fit each other.
        ArtefactError: the data or the extractor cannot be read safely.
    """

    def __init__(self, bundle: Bundle, source: str, extractor: Path | str) -> None:
        spec = bundle.spec
        image = is_image(spec)
        self.bundle = bundle
        self.name = Path(source).name  # no path of this machine
        self.extractor = open_extractor(extractor) if image else None
        if self.extractor is not None:
            self.extractor.demand(spec.shape)
        data = read_data(source, (*spec.shape[1:], spec.shape[0]) if image else spec.shape)
        self.features = data if self.extractor is None else self.extractor.view(data).features

    def compare(
        self,
        reference: Side,
        candidate: Side,
        program: Program,
        *,
        n: int,
        seed: int = 0,
        on_step: Callable[[], None] = lambda: None,
    ) -> Frechet:
        """Draw n samples of each side with the same noise, and measure both distances.

        UsageError if n or the number of data is less than 2.
        """
        before, after = frechet_distances(
            self.bundle,
            (reference, candidate),
            program,
            self.features,
            self._features,
            n=n,
            seed=seed,
            on_step=on_step,
        )
        used = self.extractor
        name, sha256 = (None, None) if used is None else (used.name, used.sha256)
        return Frechet(self.name, n, name, sha256, before, after)

    def _features(self, samples: NDArray[np.float32]) -> NDArray[Any]:
        if self.extractor is None:
            return samples
        return self.extractor.view(to_uint8(samples, self.bundle.spec)).features


def frechet_distances(
    bundle: Bundle,
    sides: tuple[Side, Side],
    program: Program,
    data: NDArray[np.floating],
    features: Features,
    *,
    n: int,
    seed: int = 0,
    on_step: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Return the distance of each side's n samples to `data`, which are features [N, F].

    `features` turns samples float32 [n, *S] into features. Both sides draw with the same noise.
    UsageError if n or N is less than 2.
    """
    wanted = fit_gaussian(data)

    def distance(side: Side) -> float:
        model = Model(bundle, side.backend)
        samples = model.sample(program, n=n, seed=seed, on_step=lambda _: on_step())
        return frechet_distance(fit_gaussian(features(samples)), wanted)

    first, second = sides
    return distance(first), distance(second)
