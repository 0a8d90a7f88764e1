"""The device protocol in the host's memory: the driver of GPUs then runs an engine on a CPU.

Work is done at once, in order, and the noise is numpy's, so it has the bits of other CPU backends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from difftool.diffusion.noise import normal
from difftool.runtime.cuda.device import Array, Buffer, Launch


@dataclass(frozen=True, eq=False)
class HostBuffer:
    """An array in the host's memory."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Return its shape."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return its type."""
        return self.array.dtype

    @property
    def address(self) -> int:
        """Return where it begins."""
        return self.array.ctypes.data


class HostDevice:
    """The CPU as a device. A captured graph is its work, to be done once more."""

    name = "the CPU"
    number = 0
    stream = 0

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> HostBuffer:
        """Allocate an array of zeros."""
        return HostBuffer(np.zeros(shape, dtype))

    def upload(self, buffer: Buffer, array: Array) -> None:
        """Copy an array of the same shape and type in."""
        _array(buffer)[...] = array

    def clear(self, buffer: Buffer) -> None:
        """Fill a buffer with zeros."""
        _array(buffer)[...] = 0

    def download(self, buffer: Buffer, out: Array) -> None:
        """Copy the buffer out."""
        out[...] = _array(buffer)

    def launch(self, kernel: str, arguments: Sequence[Buffer | np.generic], threads: int) -> None:
        """Run the noise kernel, the only one that the driver launches."""
        assert kernel == "difftool_noise", kernel
        buffers = [_array(item) for item in arguments if isinstance(item, HostBuffer)]
        scalars = {type(item): item for item in arguments if isinstance(item, np.generic)}
        _noise(*buffers, stream=int(scalars[np.uint32]), scale=float(scalars[np.float32]))

    def capture(self, enqueue: Launch) -> Launch:
        """Return the work itself."""
        return enqueue

    def capture_loop(self, enqueue: Launch, row: Buffer, end: Buffer) -> Launch:
        """Return a loop of the work, which runs at least once, until row[0] >= end[0]."""

        def loop() -> None:
            enqueue()
            while _array(row)[0] < _array(end)[0]:
                enqueue()

        return loop

    def synchronize(self) -> None:
        """Wait for nothing."""


def _array(buffer: Buffer | np.generic) -> Array:
    assert isinstance(buffer, HostBuffer)
    return buffer.array


def _noise(
    noise: NDArray[np.float32],
    row: NDArray[np.int64],
    draws: NDArray[np.uint32],
    samples: NDArray[np.uint32],
    seed: NDArray[np.uint64],
    *,
    stream: int,
    scale: float,
) -> None:
    """Do what kernels/noise.cu does: a sample beyond the table keeps its noise."""
    inside = (row >= 0) & (row < len(draws))
    for at in np.unique(row[inside]):
        here = row == at
        drawn = normal(int(seed[0]), draws[at], samples[here], noise.shape[1:], stream=stream)
        noise[here] = np.float32(scale) * drawn
