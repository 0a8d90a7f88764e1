"""Find the layers that tolerate 8 bits: each is tried alone, from states of the exact model."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from difftool.compile.quantization.calibration import Feed, Floats, first_samples, step_session
from difftool.compile.quantization.graph import Ranges, in_8_bits

FAIR_SHARES: Final = 4.0  # a layer with more than so many equal shares of the error stays in float
_FEEDS, _SAMPLES = 8, 1  # the feeds, and the samples in each, that a layer is tried on


def shares(
    model: onnx.ModelProto,
    ranges: Ranges,
    layers: Sequence[str],
    feeds: Sequence[Feed],
    on_layer: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Return each layer's share, 0 to 1, of the squared error of x after a row, a mean over feeds.

    Errors of single layers are small and nearly independent, so their squares add up.
    """
    some = [first_samples(feed, _SAMPLES) for feed in feeds[:: -(-len(feeds) // _FEEDS)]]
    exact = outputs(model, some)
    errors = np.empty((len(layers), len(some)))
    for index, layer in enumerate(layers):
        errors[index] = squared_errors(in_8_bits(model, ranges, [layer]), some, exact)
        on_layer()
    whole = errors.sum(0)
    parts = np.divide(errors, whole, out=np.zeros_like(errors), where=whole > 0)
    return dict(zip(layers, parts.mean(1).tolist(), strict=True))


def failing(shares: dict[str, float]) -> list[str]:
    """Return the layers whose share is more than FAIR_SHARES times an equal share."""
    limit = FAIR_SHARES / max(1, len(shares))
    return [layer for layer, share in shares.items() if share > limit]


def outputs(model: onnx.ModelProto, feeds: Sequence[Feed]) -> list[Floats]:
    """Return x after the row of each feed."""
    session = step_session(model.SerializeToString(), "a quantized step graph")
    return [session.run(["x_next"], feed)[0] for feed in feeds]


def squared_errors(
    model: onnx.ModelProto, feeds: Sequence[Feed], exact: Sequence[Floats]
) -> NDArray[np.float64]:
    """Return the mean squared difference of x after the row of each feed, [feeds]."""
    pairs = zip(outputs(model, feeds), exact, strict=True)
    return np.array([np.mean((x.astype(np.float64) - wanted) ** 2) for x, wanted in pairs])
