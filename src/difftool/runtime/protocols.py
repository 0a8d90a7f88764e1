"""The protocols of backends; whatever runs programs knows backends by these alone.

A backend is a class of its own and inherits nothing: libraries differ too much in who owns memory
for one base class to help all of them. What a backend can do beyond `Batch` is a protocol of one
method or property, and the loop looks for it.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.runtime.draws import Draws

Floats = NDArray[np.float32]
# (values, mask), each [N, *S]: D is `values` if `mask` is 1
Known = tuple[Floats, Floats]


class Batch(Protocol):
    """N samples on their way through a program. Its buffers are allocated once, when it is made.

    `start` sets everything that the properties show. To change a state, read it and start again
    from what you made of it; see `difftool.runtime.loop.replace_denoised`.
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
            denoised: D [N, *S] of the row before, which is shown and does not enter the next row.
            known: replaces D in every row from now on; by default nothing does. The step graph
                does this, so it needs a backend with Feature.KNOWN.
        """
        ...

    def step(self, noise: Floats | None) -> None:
        """Run the next row; `noise` is [N, *S], or None if the row uses none."""
        ...

    @property
    def x(self) -> Floats:
        """Return the state [N, *S] after the last row; a view that the next step overwrites."""
        ...

    @property
    def history(self) -> Floats:
        """Return the history [K, N, *S] after the last row; a view like `x`."""
        ...

    @property
    def denoised(self) -> Floats:
        """Return D [N, *S] of the last row; a view like `x`."""
        ...


@runtime_checkable
class DrawsNoise(Protocol):
    """A batch that draws noise where its state is, and so runs rows without a stop.

    On a GPU the host would otherwise draw and upload the noise of each row, and wait. The noise of
    these samples has no `angles`.
    """

    def begin(self, scale: float, draws: Draws, *, known: Known | None = None) -> None:
        """Begin at the first row from `scale` times draw 0; the rest is as in `Batch.start`."""
        ...

    def advance(self, rows: int, draws: Draws) -> None:
        """Run the next rows on the noise of these samples.

        This may return before the rows are done: only x, history and D wait for them.
        """
        ...


@runtime_checkable
class LikesBatches(Protocol):
    """A backend that runs one size of a batch best; for others the best is what a cache holds."""

    @property
    def best_batch(self) -> int:
        """Return how many samples run best together."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """A backend on a GPU that can say which, so that a report does not leave one guessing."""

    @property
    def device_name(self) -> str:
        """Return its name, such as "NVIDIA H100 80GB HBM3"."""
        ...

    @property
    def graphs(self) -> str:
        """Return how rows are launched as CUDA graphs, or "off"; a refused capture changes it."""
        ...


def on_device(backend: object) -> dict[str, str]:
    """Return what a report says of the GPU that a backend runs on; nothing of a CPU."""
    if not isinstance(backend, OnDevice):
        return {}
    return {"device": backend.device_name, "cuda_graphs": backend.graphs}


class Backend(Protocol):
    """An opened bundle: it makes batches that run the step graph."""

    @property
    def name(self) -> str: ...

    @property
    def features(self) -> frozenset[Feature]:
        """Return what the step graph computes beyond the plain row."""
        ...

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> Batch:
        """Make room for `size` samples of a program; the conditioner runs here, once.

        UsageError if the model lacks the labels, or the step graph what the program asks for.
        """
        ...
