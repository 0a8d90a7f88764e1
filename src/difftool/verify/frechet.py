"""The Frechet distance to data of the reference's samples and of the candidate's."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.evaluate.distances import fit_gaussian, frechet_distance
from difftool.evaluate.extractor import open_extractor
from difftool.evaluate.sets import read_data
from difftool.runtime.images import is_image, to_uint8
from difftool.runtime.model import Model


@dataclass(frozen=True)
class Frechet:
    """Distances to data of n samples: `before` for the reference, `after` for the candidate.

    Images are compared in the features of an extractor, points as they are.
    """

    data: str
    n: int
    extractor: str | None
    extractor_sha256: str | None
    preprocess: str | None
    before: float
    after: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them; points have no extractor."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class FrechetData:
    """Data to compare a model's samples with. It is read before any sample is drawn.

    Raises:
        UsageError: data, samples and extractor do not fit each other, or there are less than 2.
        ArtefactError: the data or the extractor cannot be read safely.
    """

    def __init__(
        self,
        spec: ModelSpec,
        source: str,
        extractor: Path | str,
        preprocess: str | None = None,
    ) -> None:
        image = is_image(spec)
        if preprocess is not None and not image:
            raise UsageError("points have no extractor", "leave `preprocess` out")
        self._name = Path(source).name  # no path of this machine
        self._extractor = open_extractor(extractor, preprocess=preprocess) if image else None
        if self._extractor is not None:
            self._extractor.demand(spec.shape)
        data = read_data(source, (*spec.shape[1:], spec.shape[0]) if image else spec.shape)
        self._wanted = fit_gaussian(self._features(data))

    def compare(
        self,
        models: Iterable[Model],
        program: Program,
        *,
        n: int,
        seed: int = 0,
        on_step: Callable[[], None] = lambda: None,
    ) -> Frechet:
        """Draw n samples of reference and candidate with the same noise, and measure the distances.

        UsageError if n is less than 2.
        """

        def distance(model: Model) -> float:
            samples = model.sample(program, n=n, seed=seed, on_step=lambda _: on_step())
            items = samples if self._extractor is None else to_uint8(samples, model.spec)
            return frechet_distance(fit_gaussian(self._features(items)), self._wanted)

        used = self._extractor
        seen = (None,) * 3 if used is None else (used.name, used.sha256, used.preprocess)
        return Frechet(self._name, n, *seen, *map(distance, models))

    def _features(self, items: NDArray[Any]) -> NDArray[Any]:
        return items if self._extractor is None else self._extractor.view(items).features
