"""Measure how good samples are: all figures of a set of samples against data."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from difftool.errors import UsageError
from difftool.evaluate.comparison import (
    ImageFigures,
    PointFigures,
    compare_images,
    compare_points,
)
from difftool.evaluate.extractor import open_extractor
from difftool.evaluate.inception import InceptionFigures, check_weights, inception_figures
from difftool.evaluate.sets import Samples, read_data
from difftool.evaluate.views import Extractor, View
from difftool.files import file_sha256

EXTRACTOR: Final = "mnist"  # it comes with difftool


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of samples against data.

    - `figures`: the figures of images or of points
    - `n`, `against_n`: the number of samples, and of items of the data
    - `extractor`, `extractor_sha256`: the extractor of the images' features; None for points
    - `preprocess`: what was done to images before the extractor saw them; None for points
    - `inception`, `inception_sha256`: FID and Inception Score, and their weights; None
      without weights
    """

    figures: ImageFigures | PointFigures
    n: int
    against_n: int
    extractor: str | None = None
    extractor_sha256: str | None = None
    preprocess: str | None = None
    inception: InceptionFigures | None = None
    inception_sha256: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as data for JSON."""
        found = self.figures
        if isinstance(found, PointFigures):
            return {"figures": asdict(found)}
        record: dict[str, Any] = {
            "extractor": self.extractor,
            "extractor_sha256": self.extractor_sha256,
            "preprocess": self.preprocess,
            "figures": {
                "frechet_distance": found.frechet_distance,
                "kernel_distance": found.kernel_distance,
                **found.manifold._asdict(),
                "manifold_n": found.manifold_n,
            },
            "classes": None if found.classes is None else found.classes._asdict(),
        }
        if self.inception is not None:
            scores = self.inception._asdict()
            record["inception"] = {**scores, "weights_sha256": self.inception_sha256}
        return record


class Evaluator:
    """Data to compare samples of one shape with, read and checked before any samples are drawn.

    Args:
        shape: one sample's shape, [H, W, C] for images or [2] for points.
        against: an npz file of samples, a source for `difftool.data.load`, or the data itself.
        extractor: the name of a shipped extractor, "inception", an ONNX file, or an opened
            extractor.
        preprocess: how images are prepared for an ONNX file; see `open_extractor`.
        inception: Inception's weights as torch-fidelity reads them, for FID and Inception Score.

    Raises:
        UsageError: data, samples and extractor do not fit each other.
        ArtefactError: the data, the extractor or the weights cannot be read safely.
        MissingDependencyError: ONNX Runtime or torch-fidelity is not installed.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        against: str | Samples,
        *,
        extractor: Extractor | Path | str = EXTRACTOR,
        preprocess: str | None = None,
        inception: Path | None = None,
    ) -> None:
        images = len(shape) == 3
        if not images and (inception or preprocess or extractor != EXTRACTOR):
            raise UsageError(
                "points have no extractor", "leave `extractor`, `preprocess` and `inception` out"
            )
        self.data = read_data(against, shape) if isinstance(against, str) else against
        self.shape = shape
        self._inception = inception
        self._extractor: Extractor | None = None
        self._view: View | None = None
        if images:
            if isinstance(extractor, (Path, str)):
                extractor = open_extractor(extractor, preprocess=preprocess, weights=inception)
            elif preprocess is not None:
                raise UsageError(
                    "`preprocess` is for an extractor that is not open yet",
                    "give it to `open_extractor`",
                )
            self._extractor = extractor
            height, width, channels = shape
            self._extractor.demand((channels, height, width))
        if inception is not None:
            check_weights(inception)

    def evaluate(self, samples: Samples) -> Evaluation:
        """Compare samples, uint8 [N, H, W, C] or float [N, 2], with the data.

        UsageError if there are too few, or they have another shape.
        """
        if samples.shape[1:] != self.shape:
            raise UsageError(
                f"samples have the shape {samples.shape[1:]}, not {self.shape}",
                "give uint8 [N, H, W, C] as `to_uint8` makes them, or points [N, 2]",
            )
        n, against_n = len(samples), len(self.data)
        if self._extractor is None:
            points = compare_points(samples, self.data)
            return Evaluation(figures=points, n=n, against_n=against_n)
        if self._view is None:
            self._view = self._extractor.view(self.data)
        figures = compare_images(self._extractor.view(samples), self._view)
        weights = self._inception
        return Evaluation(
            figures=figures,
            n=n,
            against_n=against_n,
            extractor=self._extractor.name,
            extractor_sha256=self._extractor.sha256,
            preprocess=self._extractor.preprocess,
            inception=None if weights is None else inception_figures(samples, self.data, weights),
            inception_sha256=None if weights is None else file_sha256(weights),
        )


def evaluate(
    samples: Samples,
    *,
    against: str | Samples,
    extractor: Extractor | Path | str = EXTRACTOR,
    preprocess: str | None = None,
    inception: Path | None = None,
) -> Evaluation:
    """Measure how good samples are, against data; see `docs/evaluation.md` for the figures.

    Images: Frechet and kernel distance, precision, recall, density and coverage in an extractor's
    features; confidence and balance of its classes. Points: sliced Wasserstein distance and MMD.

    Args:
        samples: pixels uint8 [N, H, W, C], as `difftool.to_uint8` makes them, or points [N, 2].
        against: an npz file of samples, a source for `difftool.data.load`, or an array like
            `samples`.
        extractor: the name of a shipped extractor, "inception", an ONNX file, or an opened
            extractor.
        preprocess: how images are prepared for an ONNX file; see `open_extractor`.
        inception: Inception's weights as torch-fidelity reads them, for FID and Inception Score.

    Raises:
        UsageError: there are too few samples, or data, samples and extractor do not fit.
        ArtefactError: the data, the extractor or the weights cannot be read safely.
        MissingDependencyError: ONNX Runtime or torch-fidelity is not installed.

    Examples:
        >>> model = difftool.load("ddpm-mnist")
        >>> program = difftool.samplers.ddim(model.spec, steps=5)
        >>> drawn = [model.sample(program, n=8, seed=seed) for seed in (0, 1)]
        >>> one, other = (difftool.to_uint8(samples, model.spec) for samples in drawn)
        >>> found = difftool.evaluate.evaluate(one, against=other)
        >>> found.figures.frechet_distance > 0
        True
    """
    against_these = Evaluator(
        samples.shape[1:], against, extractor=extractor, preprocess=preprocess, inception=inception
    )
    return against_these.evaluate(samples)
