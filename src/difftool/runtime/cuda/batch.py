"""A batch on a device, whatever engine runs it.

A program's state and tables stay on the device from `start` to the last row. The host uploads the
beginning of a run, launches rows, and waits only if somebody reads x, the history or D.
"""

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.runtime.cuda.device import Buffer
from difftool.runtime.cuda.owner import Owner
from difftool.runtime.cuda.room import Graphs, Room
from difftool.runtime.draws import Draws
from difftool.runtime.protocols import Known

Floats = NDArray[np.float32]


class DeviceBatch:
    """N samples on their way through a program, in a room for N or more.

    A slot beyond the last sample repeats that sample, and so is as finite.
    """

    def __init__(
        self,
        room: Room,
        program: Program,
        first: NDArray[np.int64],
        size: int,
        owner: Owner,
    ) -> None:
        # No buffer, and not the device: the room is what its owner empties.
        self._room, self._owner = room, owner
        self._size = size
        self._slots = np.minimum(np.arange(room.extent.size), size - 1)
        self._first = first[self._slots]
        self._random = bool(program.table[:, Column.D].any())
        self._side, self._done = 0, 0
        self._draws: Draws | None = None  # whose samples and seed are on the device
        self._seen: dict[str, Floats] = {}  # what was downloaded since the last row

    @property
    def graphs(self) -> Graphs:
        """Return how rows are launched; an engine that refuses a capture changes it."""
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

        def work() -> None:
            self._upload(self._room.x[0], x[self._slots])
            if history is None:
                self._room.device.clear(self._room.history[0])
            else:
                self._upload(self._room.history[0], history[:, self._slots])
            self._place(row, known)

        self._owner.call(work)
        # The step graph reads no D, so D is kept here for those who look at it.
        self._seen = {} if denoised is None else {"denoised": np.array(denoised, np.float32)}

    def begin(self, scale: float, draws: Draws, *, known: Known | None = None) -> None:
        """Begin at the first row from `scale` times normals, which are drawn on the device."""

        def work() -> None:
            self._tell(draws)
            self._room.start(scale)
            self._room.device.clear(self._room.history[0])
            self._place(0, known)

        self._owner.call(work)
        self._seen = {}

    def advance(self, rows: int, draws: Draws) -> None:
        """Launch the next rows on the noise of these samples, and do not wait for their end."""
        self._done += rows
        self._seen.clear()
        end = int(self._first[0]) + self._done

        def work() -> None:
            self._tell(draws)
            self._side = self._room.advance(self._side, rows, end, draw=self._random)

        self._owner.call(work)

    def step(self, noise: Floats | None) -> None:
        """Run the next row with noise [N, *S] from the host."""

        def work() -> None:
            if noise is not None:
                self._upload(self._room.noise, noise[self._slots])
            self._room.run(self._side, draw=False)

        self._owner.call(work)
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
            found = np.empty(buffer.shape, np.float32)
            self._owner.call(lambda: self._room.device.download(buffer, found))
            self._seen[name] = found
        return self._seen[name]

    def _place(self, row: int, known: Known | None) -> None:
        """Put every sample at a row of its block, and set the values that are known."""
        self._side, self._done = 0, row
        self._upload(self._room.row[0], self._first + row)
        for index, name in enumerate(("known", "mask")):
            if known is not None:
                self._upload(self._room.fixed[name], known[index][self._slots])
            elif name in self._room.fixed:
                self._room.device.clear(self._room.fixed[name])

    def _tell(self, draws: Draws) -> None:
        """Upload the samples and the seed, unless they are those of the last time."""
        if draws is not self._draws:
            self._upload(self._room.samples, draws.samples[self._slots].astype(np.uint32))
            self._upload(self._room.seeds, np.full(len(self._slots), draws.seed, np.uint64))
            self._draws = draws

    def _upload(self, buffer: Buffer, array: NDArray[np.generic]) -> None:
        self._room.device.upload(buffer, np.ascontiguousarray(array, buffer.dtype))
