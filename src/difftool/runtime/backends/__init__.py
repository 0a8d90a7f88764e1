"""Backends: one file each, one class that runs rows.

A backend's library is imported inside its own file, which is imported on demand.
"""

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import Bundle
from difftool.diffusion.program import Program
from difftool.errors import UsageError

Floats = NDArray[np.float32]

BACKENDS: Final = ("onnxruntime-cpu",)


class Batch(Protocol):
    """N samples on their way through a program. Buffers are allocated once, when it is made."""

    def start(self, x: Floats, *, row: int = 0, history: Floats | None = None) -> None:
        """Begin at a row from x [N, *S] and history [K, N, *S], which is empty by default."""
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


class Backend(Protocol):
    """What runs a bundle's step graph."""

    @property
    def name(self) -> str: ...

    def batch(self, program: Program, size: int) -> Batch:
        """Room for `size` samples of a program; the conditioner runs here, once."""
        ...


def open_backend(bundle: Bundle, name: str | None, *, threads: int | None) -> Backend:
    """The named backend on a bundle; the fastest that is installed where no name is given."""
    name = name or BACKENDS[0]
    if name == "onnxruntime-cpu":
        from difftool.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu

        return OnnxRuntimeCpu(bundle, threads=threads)
    raise UsageError(f"unknown backend {name!r}", f"one of: {', '.join(BACKENDS)}")
