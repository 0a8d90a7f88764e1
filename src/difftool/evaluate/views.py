"""What every extractor offers, whatever runs it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """An extractor's outputs for N images: features [N, F], and probabilities [N, K] or None."""

    features: Floats
    probabilities: Floats | None


class Extractor(Protocol):
    """An opened extractor, as `open_extractor` returns it.

    - `name`: its shipped name, "inception" or its path
    - `sha256`: the digest of its file, or of Inception's weights
    - `preprocess`: the name of what is done to images before the network sees them
    """

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def preprocess(self) -> str: ...

    def demand(self, shape: tuple[int, ...]) -> None:
        """Check that the extractor takes images of this shape [C, H, W], and prepare for them.

        Raises:
            UsageError: it takes images of other shapes.
            ArtefactError: it would take too much memory, or what runs it refuses it.
        """

    def view(self, pixels: Pixels) -> View:
        """Run the extractor on pixels uint8 [N, H, W, C].

        Raises:
            UsageError: it takes images of another shape.
            ArtefactError: it fails, or its outputs are not finite.
        """
