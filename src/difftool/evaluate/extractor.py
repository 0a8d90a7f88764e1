"""The extractor: an ONNX file that turns images into the features in which they are compared.

    in : one float32 input [N, C, H, W], pixels in 0 .. 1
    out: features [N, F];  probabilities [N, K] of K classes, which may be missing

A fixed C, H or W is demanded of the images; a free one fits any. N must be free. Digits come with
the package: `mnist`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.alone import onnx_runtime
from difftool.errors import ArtefactError, UsageError
from difftool.files import sha256_of
from difftool.preflight import GraphLimits, check_graph

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

FEATURES: Final = "features"
PROBABILITIES: Final = "probabilities"

_SHIPPED: Final = Path(__file__).parent.parent / "extractors"
_BATCH: Final = 256  # images that run together
_INTERFACE: Final = "an extractor has one float32 input [N, C, H, W] and an output features [N, F]"


@dataclass(frozen=True)
class View:
    """What an extractor says of N images: features [N, F], and probabilities [N, K] or None."""

    features: Floats
    probabilities: Floats | None


class Extractor:
    """An opened extractor. `name` is as it was asked for, `sha256` the file's digest."""

    def __init__(self, path: Path, name: str, *, threads: int | None = None) -> None:
        self.name = name
        self.sha256 = sha256_of(path)
        _check(path)
        self._session = _session(path, threads)
        self._outputs = [
            output.name
            for output in self._session.get_outputs()
            if output.name in (FEATURES, PROBABILITIES)
        ]
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
            raise ArtefactError(f"{path} takes other inputs than images", _INTERFACE)
        if FEATURES not in self._outputs:
            raise ArtefactError(f"{path} has no output {FEATURES!r}", _INTERFACE)
        self._input = inputs[0].name
        self._axes = inputs[0].shape

    def demand(self, shape: tuple[int, ...]) -> None:
        """UsageError where the extractor does not take images of this shape [C, H, W]."""
        wanted = self._axes[1:]
        fits = zip(wanted, shape, strict=True)
        if any(isinstance(axis, int) and axis != size for axis, size in fits):
            axes = ", ".join(str(axis) if isinstance(axis, int) else "any" for axis in wanted)
            raise UsageError(
                f"the extractor {self.name} takes images of shape ({axes}), not {shape}",
                "give one for such images: --extractor FILE.onnx",
            )

    def view(self, pixels: Pixels) -> View:
        """What the extractor says of pixels uint8 [N, H, W, C].

        Raises:
            UsageError: it takes images of another shape.
            ArtefactError: it fails on them, or answers with numbers that are not finite.
        """
        height, width, channels = pixels.shape[1:]
        self.demand((channels, height, width))
        batches = [
            self._run(pixels[first : first + _BATCH]) for first in range(0, len(pixels), _BATCH)
        ]
        found = {
            name: np.concatenate([batch[index] for batch in batches]).astype(np.float64)
            for index, name in enumerate(self._outputs)
        }
        if any(value.ndim != 2 or not np.isfinite(value).all() for value in found.values()):
            raise ArtefactError(
                f"the extractor {self.name} gives no finite rows of numbers", _INTERFACE
            )
        return View(found[FEATURES], found.get(PROBABILITIES))

    def _run(self, pixels: Pixels) -> list[Any]:
        batch = pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        try:
            return list(self._session.run(self._outputs, {self._input: batch}))
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            reason = str(error).splitlines()[0][:200]
            raise ArtefactError(
                f"the extractor {self.name} failed: {reason}", _INTERFACE
            ) from error


def shipped_extractors() -> list[str]:
    """Names of the extractors that come with the package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.onnx"))


def open_extractor(extractor: Path | str = "mnist", *, threads: int | None = None) -> Extractor:
    """Open an extractor, given by its file or by the name of a shipped one.

    `threads` are ONNX Runtime's, all cores by default. ArtefactError where the file is no
    extractor, MissingDependencyError where ONNX Runtime is not installed.
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


def _check(path: Path) -> None:
    """ArtefactError where the file is not ONNX, or more than a graph."""
    try:
        check_graph(path, control_flow=True, limits=GraphLimits())
    except ArtefactError as error:
        raise ArtefactError(
            error.message, "give one file of ONNX's own operators", code=error.code
        ) from error


def _session(path: Path, threads: int | None) -> Any:
    runtime = onnx_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base of their own
        reason = str(error).splitlines()[0][:200]
        raise ArtefactError(f"ONNX Runtime refuses {path}: {reason}", "is it ONNX?") from error
