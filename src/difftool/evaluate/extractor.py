"""Extractors: ONNX files that turn images into features, by which they are compared.

    in : one float32 input [N, C, H, W], pixels in 0 .. 1
    out: features [N, F];  probabilities [N, K] of K classes, which may be missing

Images must have the graph's C, H and W, except for those that it leaves free. N must be free. The
package ships an extractor of digits, `mnist`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.alone import onnx_runtime
from difftool.errors import ArtefactError, UsageError, first_line
from difftool.files import read_limited
from difftool.preflight import Graph, GraphLimits, OnnxFile, Value, read_graph
from difftool.runtime.backends.sessions import cpu_options, open_session

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

FEATURES: Final = "features"
PROBABILITIES: Final = "probabilities"

BATCH: Final = 256  # images that run together at most
MOST_MEMORY: Final = 8 << 30  # bytes of a batch

_SHIPPED: Final = Path(__file__).parent.parent / "extractors"
_LARGEST: Final = 2 << 30  # bytes of a file
_FLOAT32: Final = 1  # ONNX's number of it
_INTERFACE: Final = "an extractor has one float32 input [N, C, H, W] and an output features [N, F]"


@dataclass(frozen=True)
class View:
    """An extractor's outputs for N images: features [N, F], and probabilities [N, K] or None."""

    features: Floats
    probabilities: Floats | None


class Extractor:
    """An opened extractor; `name` is its shipped name or its path, `sha256` the file's digest."""

    def __init__(self, path: Path, name: str, *, threads: int | None = None) -> None:
        self.name = name
        data = read_limited(path, _LARGEST)
        self.sha256 = hashlib.sha256(data).hexdigest()
        self._file = OnnxFile(path, data, _judged(data, path))
        self._threads = threads
        inputs, outputs = self._file.graph.inputs, self._file.graph.outputs
        self._outputs = [name for name in outputs if name in (FEATURES, PROBABILITIES)]
        self._input, images = next(iter(inputs.items()), ("", Value()))
        if len(inputs) != 1 or images.kind != _FLOAT32 or len(images.shape or ()) != 4:
            raise ArtefactError(f"{path} takes other inputs than images", _INTERFACE)
        if FEATURES not in self._outputs:
            raise ArtefactError(f"{path} has no output {FEATURES!r}", _INTERFACE)
        self._axes = images.shape or ()
        self._session: Any = None
        self._shape: tuple[int, ...] | None = None  # the last shape that was checked
        self.batch = BATCH
        onnx_runtime()  # so that a missing ONNX Runtime is found at once

    def demand(self, shape: tuple[int, ...]) -> None:
        """Check that the extractor takes images of this shape [C, H, W], and prepare for them.

        Raises:
            UsageError: it takes images of other shapes.
            ArtefactError: it would take too much memory, or ONNX Runtime refuses it.
        """
        wanted = self._axes[1:]
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
        """Run the extractor on pixels uint8 [N, H, W, C].

        Raises:
            UsageError: it takes images of another shape.
            ArtefactError: it fails, or its outputs are not finite.
        """
        height, width, channels = pixels.shape[1:]
        self.demand((channels, height, width))
        size = self.batch
        batches = [self._run(pixels[first : first + size]) for first in range(0, len(pixels), size)]
        found = {
            name: np.concatenate([batch[index] for batch in batches]).astype(np.float64)
            for index, name in enumerate(self._outputs)
        }
        if any(value.ndim != 2 or not np.isfinite(value).all() for value in found.values()):
            raise ArtefactError(
                f"the extractor {self.name} gives no finite rows of numbers", _INTERFACE
            )
        return View(found[FEATURES], found.get(PROBABILITIES))

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
        batch = pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        try:
            return list(self._session.run(self._outputs, {self._input: batch}))
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise ArtefactError(
                f"the extractor {self.name} failed: {first_line(error)}", _INTERFACE
            ) from error


def shipped_extractors() -> list[str]:
    """Return the names of the extractors that come with the package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.onnx"))


def open_extractor(extractor: Path | str = "mnist", *, threads: int | None = None) -> Extractor:
    """Open an extractor, given by its file or by the name of a shipped one.

    `threads` is the number of ONNX Runtime's threads, by default one for each core. ArtefactError
    if the file is not an extractor, MissingDependencyError if ONNX Runtime is not installed.
    """
    path = Path(extractor)
    if str(extractor) in shipped_extractors():
        path = _SHIPPED / f"{extractor}.onnx"
    if not path.is_file():
        raise ArtefactError(
            f"no extractor at {extractor}, and none is shipped under that name",
            f"shipped: {', '.join(shipped_extractors()) or 'none'}",
        )
    return Extractor(path, path.stem if path.parent == _SHIPPED else str(path), threads=threads)


def _judged(data: bytes, path: Path) -> Graph:
    """Return the graph; ArtefactError if the file is not ONNX, or more than a graph."""
    try:
        return read_graph(data, str(path), limits=GraphLimits())
    except ArtefactError as error:
        raise ArtefactError(
            error.message, "give one file of ONNX's own operators", code=error.code
        ) from error
