"""Runs programs on a device: what all engines share.

A program's state and tables stay on the device from `start` to the last row. The host uploads what
a run begins with, launches rows, and waits only when somebody reads x, the history or D.
"""

import contextlib
import threading
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.labels import Rows
from difftool.diffusion.program import Program
from difftool.errors import ResourceError, UsageError
from difftool.runtime.cuda.device import Buffer, Device, StepEngine
from difftool.runtime.cuda.room import Extent, Graphs, Room
from difftool.runtime.draws import Draws
from difftool.runtime.memory import is_out_of_memory, no_memory
from difftool.runtime.protocols import Known

Floats = NDArray[np.float32]

_FREE_ROOMS = 2  # kept for the next batch of the same extent; each holds device memory


class Driver:
    """Makes batches for an engine. The rooms of batches that are gone are used again.

    Any thread may make and run batches; one at a time is on the stream, which all share.
    """

    def __init__(self, device: Device, engine: StepEngine, graphs: Graphs = "pairs") -> None:
        self.device, self.engine = device, engine
        self._graphs: Graphs = graphs
        self._free: deque[Room] = deque(maxlen=_FREE_ROOMS)
        self._lock = threading.RLock()

    def batch(
        self,
        program: Program,
        rows: Rows,
        cond_table: Floats,
        shape: tuple[int, ...],
    ) -> "DeviceBatch":
        """Room for samples of `shape` [N, *S] of a program; `cond_table` is [U, C].

        N below the engine's profile is padded. UsageError if N is above it, or if padding
        would change the samples.
        """
        size, *sample = shape
        fewest, most = self.engine.sizes
        if size > most:
            raise UsageError(
                f"a batch of {size}, and the engine takes {fewest} to {most}",
                f"use max_batch {most}, or {self.engine.wider(size)}",
            )
        if size < fewest and program.coupled:
            raise UsageError(
                f"steps adapt to the mean of a batch of {size}, which the engine pads to {fewest}",
                f"draw at least {fewest} samples, or {self.engine.wider(size)}",
            )
        extent = Extent(
            size=max(size, fewest),
            sample=tuple(sample),
            table=(len(rows.table), rows.table.shape[1]),
            cond_table=(cond_table.shape[0], cond_table.shape[1]),
            slots=program.history,
        )
        with self._lock:
            room = self._room(extent)
            tables = {"table": rows.table.astype(np.float32), "cond_table": cond_table}
            for name in tables.keys() & room.fixed.keys():
                self.device.upload(room.fixed[name], tables[name])
            blocks = len(rows.table) // len(program)
            self.device.upload(room.draws, np.tile(program.draws, blocks).astype(np.uint32))
            batch = DeviceBatch(room, program, rows.first, size, self._lock)
        # A batch goes at any moment, on any thread: to append is all that is done then.
        weakref.finalize(batch, self._free.append, room)
        return batch

    def _room(self, extent: Extent) -> Room:
        for room in list(self._free):
            if room.extent == extent:
                with contextlib.suppress(ValueError):  # another one has just pushed it out
                    self._free.remove(room)
                    return room
        try:
            return Room(self.device, self.engine, extent, self._graphs)
        except ResourceError as error:
            if is_out_of_memory(error.__cause__ or error):
                raise no_memory(extent.size) from error
            raise


class DeviceBatch:
    """N samples on their way through a program, in a room for N or more.

    A slot beyond the last sample repeats that sample, so that nothing in it can go wrong.
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
        """How rows are launched; less than was asked for if an engine cannot be captured."""
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
        # The step graph reads no D: it is kept here, for whoever looks at it.
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
        """Launch the next rows on the noise of these samples, without waiting for their end."""
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
        """The state [N, *S] after the last row."""
        return self._see("x", self._room.x[self._side])[: self._size]

    @property
    def history(self) -> Floats:
        """The history [K, N, *S] after the last row."""
        return self._see("history", self._room.history[self._side])[:, : self._size]

    @property
    def denoised(self) -> Floats:
        """D [N, *S] of the last row."""
        return self._see("denoised", self._room.denoised)[: self._size]

    def _see(self, name: str, buffer: Buffer) -> Floats:
        if name not in self._seen:
            self._seen[name] = np.empty(buffer.shape, np.float32)
            with self._lock:
                self._device.download(buffer, self._seen[name])
        return self._seen[name]

    def _upload(self, buffer: Buffer, array: NDArray[np.generic]) -> None:
        self._device.upload(buffer, np.ascontiguousarray(array, buffer.dtype))
