"""The device protocol in the host's memory: the driver of GPUs then runs an engine on a CPU.

Work is done at once, in order, and the noise is numpy's, so it has the bits of other CPU backends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

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

    def upload(self, buffer: Buffer, array: Array, at: int | None = None) -> None:
        """Copy an array in; see `difftool.runtime.cuda.device.Device`."""
        _part(buffer, array, at)[...] = array

    def clear(self, buffer: Buffer) -> None:
        """Fill a buffer with zeros."""
        _array(buffer)[...] = 0

    def download(self, buffer: Buffer, out: Array, at: int | None = None) -> None:
        """Copy the buffer out, or a part of it."""
        out[...] = _part(buffer, out, at)

    def launch(self, kernel: str, arguments: Sequence[Buffer | np.generic], threads: int) -> None:
        """Do what a kernel of `kernels/` does."""
        values = [item.array if isinstance(item, HostBuffer) else item for item in arguments]
        _KERNELS[kernel](*values)

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


def _part(buffer: Buffer, array: Array, at: int | None) -> Array:
    whole = _array(buffer)
    return whole if at is None else whole[at : at + len(array)]


def _noise(
    noise: NDArray[np.float32],
    row: NDArray[np.int64],
    draws: NDArray[np.uint32],
    samples: NDArray[np.uint32],
    seeds: NDArray[np.uint64],
    stream: np.uint32,
    scale: np.float32,
    *_: np.int32,
) -> None:
    """Do what kernels/noise.cu does: a sample beyond the table keeps its noise."""
    inside = np.flatnonzero((row >= 0) & (row < len(draws)))
    kinds = list(zip(row[inside].tolist(), seeds[inside].tolist(), strict=True))
    for at, seed in set(kinds):
        here = inside[[kind == (at, seed) for kind in kinds]]
        drawn = normal(seed, draws[at], samples[here], noise.shape[1:], stream=int(stream))
        noise[here] = scale * drawn


def _gather(*arguments: Any) -> None:
    """Do what `difftool_gather` of kernels/slots.cu does."""
    x, history, noise, known, mask, row = arguments[:6]
    slot_x, slot_history, slot_noise, slot_known, slot_row, own = arguments[6:12]
    samples, seeds, draws, places, stream, knows = arguments[12:18]
    slots = np.where(places < 0, ~places, places)
    x[...], row[...] = slot_x[slots], slot_row[slots]
    history[...] = slot_history[slots].swapaxes(0, 1)
    noise[...] = slot_noise[slots]
    drawn = np.where(own[slots], -1, row)
    _noise(noise, drawn, draws, samples[slots], seeds[slots], stream, np.float32(1))
    if knows:
        known[...], mask[...] = slot_known[slots].swapaxes(0, 1)


def _scatter(*arguments: Any) -> None:
    """Do what `difftool_scatter` of kernels/slots.cu does."""
    slot_x, slot_history, slot_row, x, history, row, places = arguments[:7]
    there = places >= 0
    slots = places[there]
    slot_x[slots], slot_row[slots] = x[there], row[there]
    slot_history[slots] = history[:, there].swapaxes(0, 1)


_KERNELS: Final = {
    "difftool_noise": _noise,
    "difftool_gather": _gather,
    "difftool_scatter": _scatter,
}
