"""The protocol of a GPU, as backends use it; small enough for a fake one in tests.

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
        """Return where it begins in the device's memory."""
        ...


class Device(Protocol):
    """One GPU and one stream on it."""

    @property
    def name(self) -> str: ...

    @property
    def number(self) -> int:
        """Return which of the machine's GPUs it is, from 0."""
        ...

    @property
    def stream(self) -> int:
        """Return the handle of the stream to enqueue on; within `capture` it is another one."""
        ...

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> Buffer:
        """Allocate an array of zeros; ResourceError if memory is short."""
        ...

    def upload(self, buffer: Buffer, array: Array, at: int | None = None) -> None:
        """Copy an array of the same shape and type in; it may change when this returns.

        With `at` the array is shorter, and goes to `buffer[at : at + len(array)]`.
        """
        ...

    def clear(self, buffer: Buffer) -> None:
        """Fill a buffer with zeros."""
        ...

    def download(self, buffer: Buffer, out: Array, at: int | None = None) -> None:
        """Wait for the work so far and copy the buffer out, or a part of it as in `upload`."""
        ...

    def launch(self, kernel: str, arguments: Sequence[Buffer | np.generic], threads: int) -> None:
        """Run a kernel of `kernels/`; scalars are passed by value, so a graph keeps them."""
        ...

    def capture(self, enqueue: Launch) -> Launch:
        """Capture what `enqueue` puts on the stream as one CUDA graph, which is not run yet."""
        ...

    def capture_loop(self, enqueue: Launch, row: Buffer, end: Buffer) -> Launch:
        """Capture it in a WHILE node, which runs it at least once, until row[0] >= end[0]."""
        ...

    def synchronize(self) -> None:
        """Wait for the work so far."""
        ...


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Bound:
    """An engine on fixed buffers.

    - `runs`: each enqueues a run on one set of inputs and outputs, on the device's stream
    - `capturable`: a run can be part of a CUDA graph
    - `replays`: a run replays a graph of its own, which stays for as long as the engine does
    - `keep`: called after the first run of each, to keep what they compiled for another process
    """

    runs: Sequence[Launch]
    capturable: bool
    keep: Launch = _nothing
    replays: bool = False


class StepEngine(Protocol):
    """A step graph compiled for a device; see `difftool.export.step` for its tensors."""

    @property
    def inputs(self) -> frozenset[str]:
        """Return the names of the tensors that it takes."""
        ...

    @property
    def sizes(self) -> tuple[int, int]:
        """Return the fewest and the most samples of a run."""
        ...

    @property
    def best(self) -> int:
        """Return how many samples it runs best together."""
        ...

    def wider(self, size: int) -> str:
        """Say how to get one that takes `size` samples, as a hint to the user."""
        ...

    def bind(self, sides: Sequence[Mapping[str, Buffer]]) -> Bound:
        """Fix the inputs and outputs: one set for either side. UsageError if one does not fit.

        The first run of each side is never captured.
        """
        ...
