"""Backends: one file each, one class that runs rows.

A backend's library is imported inside its own file, which is imported on demand.
"""

from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import Bundle
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.errors import UsageError

if TYPE_CHECKING:
    from difftool.runtime.loop import Draws

Floats = NDArray[np.float32]

BACKENDS: Final = ("onnxruntime-cpu",)


class Batch(Protocol):
    """N samples on their way through a program. Buffers are allocated once, when it is made."""

    def start(self, x: Floats, *, row: int = 0, history: Floats | None = None) -> None:
        """Begin at a row from x [N, *S] and history [K, N, *S], which is empty by default."""
        ...

    def hold(self, known: Floats, mask: Floats) -> None:
        """Replace D by `known` [N, *S] where `mask` [N, *S] is 1, in every row from now on.

        Only where the backend has "known" fused.
        """
        ...

    def revise(self, denoised: Floats) -> None:
        """Take the last row again with this D [N, *S]: x, history and D are as if it were F's."""
        ...

    def step(self, noise: Floats | None) -> None:
        """Run the next row; `noise` is [N, *S], or None where the row uses none."""
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
    """A batch that can draw the rows' noise itself, where the state is."""

    def draw(self, draws: "Draws") -> None:
        """Take the noise of these samples in `advance`."""
        ...

    def advance(self, rows: int) -> None:
        """Run the next rows. They need not be done before x, history or D is read."""
        ...


class Backend(Protocol):
    """What runs a bundle's step graph."""

    @property
    def name(self) -> str: ...

    @property
    def fused(self) -> frozenset[str]:
        """What the step graph computes beyond the plain row; see `difftool.bundle.FUSED`."""
        ...

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> Batch:
        """Room for `size` samples of a program; the conditioner runs here, once.

        UsageError where the model lacks the labels, or the step graph what the program asks for.
        """
        ...


def require_fused(fused: frozenset[str], program: Program, labels: Labels | None) -> None:
    """UsageError where a program or its guidance needs what a step graph lacks."""
    guided = labels is not None and labels.guidance_scale != 1
    needed = {"norms": program.adaptive, "guidance": guided}
    for name, asked in needed.items():
        if asked and name not in fused:
            raise UsageError(
                f"this bundle's step graph has no {name}", f"export it again --with {name}"
            )


def open_backend(bundle: Bundle, name: str | None, *, threads: int | None) -> Backend:
    """The named backend on a bundle; the fastest that is installed where no name is given."""
    name = name or BACKENDS[0]
    if name == "onnxruntime-cpu":
        from difftool.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu

        return OnnxRuntimeCpu(bundle, threads=threads)
    raise UsageError(f"unknown backend {name!r}", f"one of: {', '.join(BACKENDS)}")
