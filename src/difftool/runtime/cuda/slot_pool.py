"""The samples in slots on a device, and the steps that some of them take together.

The slots are the truth. A step gathers its samples from there, whoever they are, runs the engine,
and scatters the outcome; so a sample that joins or leaves moves no other one. These are three
launches, or one if they are captured.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.noise import SAMPLING
from difftool.runtime.cuda.device import Buffer, Device, Launch, StepEngine
from difftool.runtime.cuda.room import ITEM, Extent, Launching, captured

Floats = NDArray[np.float32]
Places = NDArray[np.int32]  # the slot at each place of a step; ~slot repeats one, and changes none


class SlotPool:
    """`extent.size` slots, and common tables as large as the extent says."""

    def __init__(
        self, device: Device, engine: StepEngine, extent: Extent, launching: Launching
    ) -> None:
        self.device, self.extent = device, extent
        self.engine, self.launching = engine, launching
        count, each = extent.size, (extent.size, *extent.sample)
        real = np.float32
        self.x, self.noise = device.allocate(each, real), device.allocate(each, real)
        self.history = device.allocate((count, extent.slots, *extent.sample), real)
        self.row = device.allocate((count,), np.int64)
        self.own = device.allocate((count,), np.int32)
        self.samples = device.allocate((count,), np.uint32)
        self.seeds = device.allocate((count,), np.uint64)
        self.draws = device.allocate(extent.table[:1], np.uint32)
        tables = {"table": extent.table, "cond_table": extent.cond_table}
        self.fixed = {
            name: device.allocate(shape, real)
            for name, shape in tables.items()
            if name in engine.inputs
        }
        knows = "known" in engine.inputs
        self.known = device.allocate((count, 2, *extent.sample), real) if knows else None
        self._start_row = device.allocate((count,), np.int64)
        self._start_draws = device.allocate((1,), np.uint32)  # the start is draw 0

    def start(self, slot: int, scale: float) -> None:
        """Draw the x of a slot: `scale` times standard normals."""
        row = np.full(self.extent.size, -1)  # what is beyond the table keeps what it has
        row[slot] = 0
        self.device.upload(self._start_row, row)
        size, elements = self.extent.size, int(np.prod(self.extent.sample))
        sizes = (np.int32(size), np.int32(elements), np.int32(1))
        self.device.launch(
            "difftool_noise",
            [
                *(self.x, self._start_row, self._start_draws, self.samples, self.seeds),
                *(np.uint32(SAMPLING), np.float32(scale), *sizes),
            ],
            size * -(-elements // ITEM),
        )

    def arrays(self) -> Mapping[str, Buffer]:
        """Return what a larger pool takes over; the host knows all else."""
        kept = {"x": self.x, "noise": self.noise, "history": self.history, "draws": self.draws}
        known = {} if self.known is None else {"known": self.known}
        return {**kept, **known, **self.fixed}


class Step:
    """A step of `size` samples of a pool: what the engine reads and writes, and its one graph."""

    def __init__(self, pool: SlotPool, size: int) -> None:
        self._pool, self._size = pool, size
        self._device, self._launching = pool.device, pool.launching
        device = pool.device
        batch = (size, *pool.extent.sample)
        history = (pool.extent.slots, *batch)
        real = np.float32
        names = ("x", "noise", *(("known", "mask") if pool.known is not None else ()))
        self._reads = {name: device.allocate(batch, real) for name in names}
        self._reads["history"] = device.allocate(history, real)
        self._reads["row"] = device.allocate((size,), np.int64)
        self._writes = {
            "x_next": device.allocate(batch, real),
            "history_next": device.allocate(history, real),
            "row_next": device.allocate((size,), np.int64),
            "denoised": device.allocate(batch, real),
        }
        self._places = device.allocate((size,), np.int32)
        self._sent: Places | None = None  # what `_places` holds
        self._graph: Launch | None = None
        self._bound = pool.engine.bind([{**self._reads, **pool.fixed, **self._writes}])
        self._warm = False

    @property
    def denoised(self) -> Buffer:
        """Return D [size, *S] of the last step."""
        return self._writes["denoised"]

    def run(self, places: Places) -> None:
        """Launch the next row of the samples at these places, and do not wait for its end."""
        if not self._warm:
            # The first run compiles and allocates, which no capture may see. It changes no slot.
            self._send(np.where(places < 0, places, ~places))
            self._enqueue()
            self._bound.keep()
            self._warm = True
        self._send(places)
        graphs = self._launching.graphs if self._bound.capturable else "off"
        if self._graph is None and graphs in ("pairs", "loop"):
            self._graph = captured(
                lambda: self._device.capture(self._enqueue), self._launching, "off"
            )
        (self._graph or self._enqueue)()

    def _send(self, places: Places) -> None:
        if self._sent is None or not np.array_equal(places, self._sent):
            self._device.upload(self._places, places)
            self._sent = places

    def _enqueue(self) -> None:
        """Enqueue the three parts of a step; the kernels' files say what their arguments are."""
        pool, reads, writes = self._pool, self._reads, self._writes
        elements = int(np.prod(pool.extent.sample))
        sizes = (np.int32(self._size), np.int32(pool.extent.slots), np.int32(elements))
        threads = self._size * -(-elements // ITEM)
        unread = reads["x"]  # in place of known values that the engine does not take
        gathered: list[Buffer | np.generic] = [
            *(reads["x"], reads["history"], reads["noise"]),
            *(reads.get("known", unread), reads.get("mask", unread), reads["row"]),
            *(pool.x, pool.history, pool.noise),
            *(unread if pool.known is None else pool.known, pool.row, pool.own),
            *(pool.samples, pool.seeds, pool.draws, self._places),
            *(np.uint32(SAMPLING), np.int32(pool.known is not None)),
        ]
        scattered: list[Buffer | np.generic] = [
            *(pool.x, pool.history, pool.row),
            *(writes["x_next"], writes["history_next"], writes["row_next"], self._places),
        ]
        self._device.launch("difftool_gather", [*gathered, *sizes], threads)
        self._bound.runs[0]()
        self._device.launch("difftool_scatter", [*scattered, *sizes], threads)
