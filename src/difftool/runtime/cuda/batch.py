"""A batch on a device, whatever engine runs it.

A program's state and tables stay on the device from `start` to the last row. The host uploads the
beginning of a run, launches rows, and waits only if somebody reads x, the history or D.
"""

import threading

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.runtime.cuda.device import Buffer
from difftool.runtime.cuda.room import Graphs, Room
from difftool.runtime.draws import Draws
from difftool.runtime.protocols import Known

Floats = NDArray[np.float32]


class DeviceBatch:
    """N samples on their way through a program, in a room for N or more.

    A slot beyond the last sample repeats that sample, so that it stays finite as that does.
    """

    def __init__(
        self,
        room: Room,
        program: Program,
        first: NDArray[np.int64],
        size: int,
        lock: threading.RLock,
    ) -> None:
        self._room, self._device, self._lock = room, room.device, lock
        self._size = size
        self._slots = np.minimum(np.arange(room.extent.size), size - 1)
        self._first = first[self._slots]
        self._random = bool(program.table[:, Column.D].any())
        self._side, self._done = 0, 0
        self._draws: Draws | None = None  # whose samples and seed are on the device
        self._seen: dict[str, Floats] = {}  # what was downloaded since the last row

    @property
    def graphs(self) -> Graphs:
        """Return how rows are launched: less than was asked for if an engine cannot be captured."""
        return self._room.graphs

    def start(
        self,
        x: Floats,
        *,
        row: int = 0,
        history: Floats | None = None,
        denoised: Floats | None = None,
        known: Known | None = None,
    ) -> None:
        """Begin at a row; see `difftool.runtime.protocols.Batch`."""
        self._side, self._done = 0, row
        extent = self._room.extent
        nothing = np.zeros((extent.size, *extent.sample), np.float32)
        if history is None:
            history = np.broadcast_to(nothing, (extent.slots, *nothing.shape))
        # The step graph reads no D, so D is kept here for those who look at it.
        self._seen = {} if denoised is None else {"denoised": np.array(denoised, np.float32)}
        with self._lock:
            self._upload(self._room.x[0], x[self._slots])
            self._upload(self._room.history[0], history[:, self._slots])
            self._upload(self._room.row[0], self._first + row)
            if known is not None or "known" in self._room.fixed:
                values, mask = known or (nothing, nothing)
                self._upload(self._room.fixed["known"], values[self._slots])
                self._upload(self._room.fixed["mask"], mask[self._slots])

    def advance(self, rows: int, draws: Draws) -> None:
        """Launch the next rows on the noise of these samples, and do not wait for their end."""
        self._done += rows
        self._seen.clear()
        end = int(self._first[0]) + self._done
        with self._lock:
            if draws is not self._draws:
                self._upload(self._room.samples, draws.samples[self._slots].astype(np.uint32))
                self._upload(self._room.seed, np.array([draws.seed], np.uint64))
                self._draws = draws
            self._side = self._room.advance(self._side, rows, end, draw=self._random)

    def step(self, noise: Floats | None) -> None:
        """Run the next row with noise [N, *S] from the host."""
        with self._lock:
            if noise is not None:
                self._upload(self._room.noise, noise[self._slots])
            self._room.run(self._side, draw=False)
        self._side ^= 1
        self._done += 1
        self._seen.clear()

    @property
    def x(self) -> Floats:
        """Return the state [N, *S] after the last row."""
        return self._see("x", self._room.x[self._side])[: self._size]

    @property
    def history(self) -> Floats:
        """Return the history [K, N, *S] after the last row."""
        return self._see("history", self._room.history[self._side])[:, : self._size]

    @property
    def denoised(self) -> Floats:
        """Return D [N, *S] of the last row."""
        return self._see("denoised", self._room.denoised)[: self._size]

    def _see(self, name: str, buffer: Buffer) -> Floats:
        if name not in self._seen:
            self._seen[name] = np.empty(buffer.shape, np.float32)
            with self._lock:
                self._device.download(buffer, self._seen[name])
        return self._seen[name]

    def _upload(self, buffer: Buffer, array: NDArray[np.generic]) -> None:
        self._device.upload(buffer, np.ascontiguousarray(array, buffer.dtype))
