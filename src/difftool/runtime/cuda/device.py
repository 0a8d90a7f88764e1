"""What the driver asks of a GPU: a protocol small enough for a test to stand in for one.

All work goes to one stream, in order. Only `download` and `synchronize` wait for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
Launch = Callable[[], None]  # starts work on the stream and does not wait for it


class Buffer(Protocol):
    """An array on the device."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def address(self) -> int:
        """Where it begins in the device's memory."""
        ...


class Device(Protocol):
    """One GPU and one stream on it."""

    @property
    def name(self) -> str: ...

    @property
    def stream(self) -> int:
        """The handle of the stream to enqueue on: another one within `capture`."""
        ...

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> Buffer:
        """An array of zeros; ResourceError if memory is short."""
        ...

    def upload(self, buffer: Buffer, array: Array) -> None:
        """Copy an array of the same shape and type in; it may change when this returns."""
        ...

    def download(self, buffer: Buffer, out: Array) -> None:
        """Wait for the work so far and copy the buffer out."""
        ...

    def launch(self, kernel: str, arguments: Sequence[Buffer | np.generic], threads: int) -> None:
        """Run a kernel of `kernels/`; scalars are passed by value, so a graph keeps them."""
        ...

    def capture(self, enqueue: Launch) -> Launch:
        """What `enqueue` puts on the stream as one CUDA graph, which is not run yet."""
        ...

    def capture_loop(self, enqueue: Launch, row: Buffer, end: Buffer) -> Launch:
        """The same in a WHILE node: again and again until row[0] >= end[0], but at least once."""
        ...

    def synchronize(self) -> None:
        """Wait for the work so far."""
        ...


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Bound:
    """An engine on fixed buffers.

    - `runs`: for each set of inputs and outputs what enqueues a run, on the device's stream
    - `capturable`: whether a run can be part of a CUDA graph
    - `keep`: called after the first run of each, to keep what they compiled for another process
    """

    runs: Sequence[Launch]
    capturable: bool
    keep: Launch = _nothing


class StepEngine(Protocol):
    """A step graph compiled for a device; see `difftool.export.step` for its tensors."""

    @property
    def inputs(self) -> frozenset[str]:
        """The tensors it takes."""
        ...

    @property
    def sizes(self) -> tuple[int, int]:
        """The fewest and the most samples of a run."""
        ...

    @property
    def best(self) -> int:
        """How many samples it runs best together."""
        ...

    def wider(self, size: int) -> str:
        """How to get one that takes `size` samples, as a hint to the user."""
        ...

    def bind(self, sides: Sequence[Mapping[str, Buffer]]) -> Bound:
        """Fix the inputs and outputs: one set for either side. UsageError if one does not fit.

        The first run of each side is never captured.
        """
        ...
