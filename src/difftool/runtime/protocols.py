"""What a backend is. The loop, and all else that runs programs, knows backends by these alone.

A backend is a class of its own and inherits nothing: libraries differ too much in who owns memory
for a base class to be of use to all. What it can do beyond `Batch` is a protocol of one method or
property, which the loop looks for.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.runtime.draws import Draws

Floats = NDArray[np.float32]
# (values, mask), each [N, *S]: D is `values` where `mask` is 1
Known = tuple[Floats, Floats]


class Batch(Protocol):
    """N samples on their way through a program. Buffers are allocated once, when it is made.

    `start` sets all that the properties show. So whoever wants to change a state reads it, and
    starts again from what it made of it; see `difftool.runtime.loop.replace_denoised`.
    """

    def start(
        self,
        x: Floats,
        *,
        row: int = 0,
        history: Floats | None = None,
        denoised: Floats | None = None,
        known: Known | None = None,
    ) -> None:
        """Begin at a row from x [N, *S], with all that came before it.

        Args:
            row: the next row to run.
            history: [K, N, *S]; zeros by default.
            denoised: D [N, *S] of the row before, only to be looked at.
            known: what replaces D in every row from now on, by default nothing. It needs a
                backend with Feature.KNOWN: the step graph does it.
        """
        ...

    def step(self, noise: Floats | None) -> None:
        """Run the next row; `noise` is [N, *S], or None if the row uses none."""
        ...

    @property
    def x(self) -> Floats:
        """The state [N, *S] after the last row; a view that the next step overwrites."""
        ...

    @property
    def history(self) -> Floats:
        """The history [K, N, *S] after the last row; a view that the next step overwrites."""
        ...

    @property
    def denoised(self) -> Floats:
        """D [N, *S] of the last row; a view that the next step overwrites."""
        ...


@runtime_checkable
class DrawsNoise(Protocol):
    """A batch that draws the rows' noise where its state is, and so runs rows without a stop.

    On a GPU the host would else draw and upload the noise of each row, and wait.
    """

    def advance(self, rows: int, draws: Draws) -> None:
        """Run the next rows on the noise of these samples, which do not lie between two others.

        The rows need not be done before x, history or D is read.
        """
        ...


@runtime_checkable
class LikesBatches(Protocol):
    """A backend for which some size of a batch is best; for others it is what a cache holds."""

    @property
    def best_batch(self) -> int:
        """How many samples run best together."""
        ...


class Backend(Protocol):
    """What runs a bundle's step graph."""

    @property
    def name(self) -> str: ...

    @property
    def features(self) -> frozenset[Feature]:
        """What the step graph computes beyond the plain row."""
        ...

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> Batch:
        """Room for `size` samples of a program; the conditioner runs here, once.

        UsageError if the model lacks the labels, or the step graph what the program asks for.
        """
        ...
