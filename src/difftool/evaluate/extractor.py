"""Extractors: ONNX files that turn images into features, by which they are compared.

    in : one float32 input [N, C, H, W], pixels in 0 .. 1 or as `difftool.evaluate.preprocess` says
    out: features [N, F];  probabilities [N, K] of K classes, which may be missing

Images must have the graph's C, H and W, except for those that it leaves free, or be prepared to
have them. N must be free. Encoders may call their features otherwise: see OTHERS. The package ships
an extractor of digits, `mnist`.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np

from difftool.alone import onnx_runtime
from difftool.errors import ArtefactError, UsageError, first_line, quoted
from difftool.evaluate.inception import INCEPTION, InceptionExtractor
from difftool.evaluate.preprocess import NAMES, NONE, Preprocess
from difftool.evaluate.views import Extractor, Pixels, View
from difftool.files import read_limited
from difftool.preflight import Graph, GraphLimits, OnnxFile, Value, read_graph
from difftool.runtime.backends.sessions import cpu_options, open_session

FEATURES: Final = "features"
PROBABILITIES: Final = "probabilities"
# Features as Hugging Face's encoders name them, the first one that there is. The last holds a
# vector for each patch, and the first of these describes the whole image.
TOKENS: Final = "last_hidden_state"
OTHERS: Final = ("image_embeds", "pooler_output", TOKENS)
PREPROCESS: Final = "difftool.preprocess"  # the key of a file's metadata that names it

BATCH: Final = 256  # images that run together at most
MOST_MEMORY: Final = 8 << 30  # bytes of a batch

_SHIPPED: Final = Path(__file__).parent.parent / "extractors"
_LARGEST: Final = 2 << 30  # bytes of a file
_FLOAT32: Final = 1  # ONNX's number of it
_INTERFACE: Final = (
    "an extractor has one float32 input [N, C, H, W] with a free N, and an output [N, F] "
    f"that is called {FEATURES}, or one of {', '.join(OTHERS)}"
)


class OnnxExtractor:
    """An extractor that ONNX Runtime runs; `preprocess` overrules what the file's metadata name."""

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        preprocess: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.name = name
        data = read_limited(path, _LARGEST)
        self.sha256 = hashlib.sha256(data).hexdigest()
        self._file = OnnxFile(path, data, _judged(data, path))
        self._threads = threads
        graph = self._file.graph
        inputs = graph.inputs
        features = next((name for name in (FEATURES, *OTHERS) if name in graph.outputs), FEATURES)
        self._outputs = [name for name in (features, PROBABILITIES) if name in graph.outputs]
        self._input, images = next(iter(inputs.items()), ("", Value()))
        if len(inputs) != 1 or images.kind != _FLOAT32 or len(images.shape or ()) != 4:
            raise ArtefactError(f"{path} takes other inputs than images", _INTERFACE)
        count, *axes = images.shape or ()
        if count is not None:
            raise ArtefactError(f"{path} takes {count} images at a time, and no others", _INTERFACE)
        if features not in self._outputs:
            raise ArtefactError(f"{path} has no output {FEATURES!r}", _INTERFACE)
        self._axes = tuple(axes)
        named = graph.metadata.get(PREPROCESS, NONE)
        if preprocess is None and named not in NAMES:
            raise ArtefactError(
                f"{path} names the preprocessing {quoted(named)}, which is unknown",
                f"give `preprocess`, one of {', '.join(NAMES)}",
            )
        self._prepare = Preprocess(named if preprocess is None else preprocess, self._axes)
        self.preprocess = self._prepare.name
        self._session: Any = None
        self._shape: tuple[int, ...] | None = None  # the last shape that was checked
        self.batch = BATCH
        onnx_runtime()  # so that a missing ONNX Runtime is found at once

    def demand(self, shape: tuple[int, ...]) -> None:
        """Check the shape [C, H, W] of images, and prepare for them; see `Extractor`."""
        shape = self._prepare.shape(shape)
        wanted = self._axes
        fits = zip(wanted, shape, strict=True)
        if any(axis is not None and axis != size for axis, size in fits):
            axes = ", ".join("any" if axis is None else str(axis) for axis in wanted)
            raise UsageError(
                f"the extractor {self.name} takes images of shape ({axes}), not {shape}",
                "give one for such images as `extractor`",
            )
        if shape != self._shape:
            self._shape, self.batch = shape, self._affordable(shape)
        if self._session is None:
            path, options = self._file.path, cpu_options(self._threads)

            def refused(reason: str) -> ArtefactError:
                return ArtefactError(f"ONNX Runtime refuses {path}: {reason}", _INTERFACE)

            providers = ["CPUExecutionProvider"]
            self._session = open_session(self._file.data, options, providers, path, refused)

    def view(self, pixels: Pixels) -> View:
        """Run the extractor on pixels uint8 [N, H, W, C]; see `Extractor`."""
        height, width, channels = pixels.shape[1:]
        self.demand((channels, height, width))
        size = self.batch
        batches = [self._run(pixels[first : first + size]) for first in range(0, len(pixels), size)]
        found = [np.concatenate(parts).astype(np.float64) for parts in zip(*batches, strict=True)]
        if self._outputs[0] == TOKENS and found[0].ndim == 3:
            found[0] = found[0][:, 0]
        if any(value.ndim != 2 or not np.isfinite(value).all() for value in found):
            raise ArtefactError(
                f"the extractor {self.name} gives no finite rows of numbers", _INTERFACE
            )
        return View(found[0], found[1] if len(found) > 1 else None)

    def _affordable(self, shape: tuple[int, ...]) -> int:
        """Return how many images of this shape may run together in the allowed memory."""
        size = BATCH
        while True:
            try:
                self._file.sizes({self._input: (size, *shape)}, MOST_MEMORY)
                return size
            except ArtefactError as error:
                if error.code != "graph-memory" or size == 1:
                    raise
                size //= 2

    def _run(self, pixels: Pixels) -> list[Any]:
        batch = self._prepare.apply(pixels)
        try:
            return list(self._session.run(self._outputs, {self._input: batch}))
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise ArtefactError(
                f"the extractor {self.name} failed: {first_line(error)}", _INTERFACE
            ) from error


def shipped_extractors() -> list[str]:
    """Return the names of the extractors that come with the package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.onnx"))


def open_extractor(
    extractor: Path | str = "mnist",
    *,
    preprocess: str | None = None,
    weights: Path | None = None,
    threads: int | None = None,
) -> Extractor:
    """Open an extractor: an ONNX file, a shipped one by its name, or "inception".

    Args:
        extractor: "inception" is the network of FID, from torch-fidelity and Inception's weights.
        preprocess: what a file expects, "dinov2", "clip", "imagenet" or "none"; by default what its
            metadata name under `difftool.preprocess`, or else none.
        weights: Inception's weights, by default those that PyTorch's cache holds.
        threads: the number of ONNX Runtime's threads, by default one for each core.

    Raises:
        UsageError: there is no such preprocessing, or the extractor takes none.
        ArtefactError: the file is not an extractor, or the weights are missing.
        MissingDependencyError: ONNX Runtime or torch-fidelity is not installed.
    """
    if str(extractor) == INCEPTION:
        if preprocess is not None:
            raise UsageError(f"{INCEPTION} prepares images by itself", "leave `preprocess` out")
        return InceptionExtractor(weights)
    path = Path(extractor)
    if str(extractor) in shipped_extractors():
        path = _SHIPPED / f"{extractor}.onnx"
    if not path.is_file():
        raise ArtefactError(
            f"no extractor at {extractor}, and none is shipped under that name",
            f"shipped: {', '.join(shipped_extractors()) or 'none'}; or {INCEPTION}",
        )
    name = path.stem if path.parent == _SHIPPED else str(path)
    return OnnxExtractor(path, name, preprocess=preprocess, threads=threads)


def _judged(data: bytes, path: Path) -> Graph:
    """Return the graph; ArtefactError if the file is not ONNX, or more than a graph."""
    try:
        return read_graph(data, str(path), limits=GraphLimits())
    except ArtefactError as error:
        raise ArtefactError(
            error.message, "give one file of ONNX's own operators", code=error.code
        ) from error
