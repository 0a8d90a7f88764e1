"""Slots on a device, for every engine that the driver runs.

The host knows which row each sample stands at, and whose noise it takes. All else stays on the
device: x, the history, the noise and the tables. Only what somebody reads is copied back.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.runtime.backends.common_table import padded, placed_rows, room_for
from difftool.runtime.backends.prepare import Preparation, Prepared
from difftool.runtime.cuda.owner import Owner
from difftool.runtime.cuda.room import Extent
from difftool.runtime.cuda.slot_pool import SlotPool, Step
from difftool.runtime.draws import drawn_scale, row_noise
from difftool.runtime.scheduling.slots import IDLE, Entry

Floats = NDArray[np.float32]


class DeviceSlots:
    """`count` slots on a device; see `difftool.runtime.scheduling.slots.Slots`.

    `make` allocates a pool, and `allocated` a step. A larger table, or a longer history, takes a
    larger pool, which all samples move to through the host; that is rare, since sizes double.
    What is on the device is put into `left` at the end, whose owner frees it on the right thread.
    """

    def __init__(
        self,
        prepare: Preparation,
        owner: Owner,
        make: Callable[[Extent], SlotPool],
        allocated: Callable[[Callable[[], Step], int], Step],
        sizes: Sequence[int],
        count: int,
        left: "SimpleQueue[Any]",
    ) -> None:
        self._prepare, self._owner, self._make, self._allocated = prepare, owner, make, allocated
        self.sizes, self._count = tuple(sizes), count
        self._row, self._own = np.zeros(count, np.int64), np.zeros(count, np.int32)
        self._samples, self._seeds = np.zeros(count, np.uint32), np.zeros(count, np.uint64)
        # Noise between two samples is the host's, as in a batch.
        self._noise: dict[int, Iterator[Floats | None]] = {}
        self._places: list[int] = []  # of the last step
        self._pools: list[SlotPool] = []  # the one that is in use, once there is one
        self._steps: dict[int, Step] = {}  # of that pool, by their sizes
        weakref.finalize(self, left.put, (self._pools, self._steps)).atexit = False

    def place(self, program: Program, labels: Labels | None, row: int, cond: int) -> None:
        """Write the rows that one sample runs into the common table."""
        begin = self._prepare(program, 1, labels)
        rows = placed_rows(begin, cond)

        def work() -> None:
            pool = self._pool_for(begin, row + len(rows), cond + len(begin.cond_table))
            device, tables = pool.device, pool.fixed
            table = padded(rows, (len(rows), pool.extent.table[1]))
            device.upload(tables["table"], table, row)
            device.upload(pool.draws, program.draws.astype(np.uint32), row)
            if "cond_table" in tables:
                device.upload(tables["cond_table"], np.ascontiguousarray(begin.cond_table), cond)

        self._owner.call(work)

    def join(self, slot: int, entry: Entry) -> None:
        """Put a sample into a slot."""
        draws, between = entry.draws, entry.draws.angles is not None
        self._row[slot], self._seeds[slot], self._own[slot] = entry.row, draws.seed, between
        self._samples[slot] = 0 if between else draws.samples[0]
        self._noise.pop(slot, None)
        if between:
            self._noise[slot] = row_noise(entry.program, draws)
        scale = drawn_scale(entry.program, draws, entry.init)
        x = entry.x[None] if scale is None else None

        def work() -> None:
            (pool,) = self._pools
            device, sample = pool.device, pool.extent.sample
            self._tell(pool)
            device.upload(pool.noise, np.zeros((1, *sample), np.float32), slot)
            history = np.zeros((1, pool.extent.slots, *sample), np.float32)
            device.upload(pool.history, history, slot)
            if pool.known is not None:
                known = np.zeros((1, 2, *sample), np.float32)
                if entry.known is not None:
                    known[0] = np.concatenate(entry.known)
                device.upload(pool.known, known, slot)
            if x is not None:
                device.upload(pool.x, np.ascontiguousarray(x, np.float32), slot)
            if scale is not None:
                pool.start(slot, scale)

        self._owner.call(work)

    def advance(self, places: Sequence[int]) -> None:
        """Launch the next row of the samples in these slots together.

        This waits for the step before, and so is never more than one ahead of the device: a sample
        that joins now runs next.
        """
        slots = [slot for slot in places if slot != IDLE]
        fresh = {slot: next(self._noise[slot]) for slot in slots if slot in self._noise}
        codes = np.array([~slots[0] if slot == IDLE else slot for slot in places], np.int32)

        def work() -> None:
            (pool,) = self._pools
            pool.device.synchronize()
            for slot, noise in fresh.items():
                if noise is not None:
                    pool.device.upload(pool.noise, np.ascontiguousarray(noise), slot)
            self._step(pool, len(places)).run(codes)

        self._owner.call(work)
        self._row[slots] += 1
        self._places = list(places)

    def read(self, slot: int, what: Literal["x", "denoised"]) -> Floats:
        """Copy x [*S] of a slot, or D of its last row, from the device; this waits for the step."""

        def work() -> Floats:
            (pool,) = self._pools
            found = np.empty((1, *pool.extent.sample), np.float32)
            if what == "x":
                pool.device.download(pool.x, found, slot)
            else:
                step = self._steps[len(self._places)]
                pool.device.download(step.denoised, found, self._places.index(slot))
            return np.asarray(found[0])

        return self._owner.call(work)

    def _step(self, pool: SlotPool, size: int) -> Step:
        if size not in self._steps:
            self._steps[size] = self._allocated(lambda: Step(pool, size), size)
        return self._steps[size]

    def _pool_for(self, begin: Prepared, rows: int, conds: int) -> SlotPool:
        """Return a pool with room for so many rows and conds, and enough entries of history.

        If memory runs out, the one that is there stays.
        """
        old = self._pools[0] if self._pools else None
        has = Extent(0, (), (0, 0), (0, 0), 0) if old is None else old.extent
        slots = max(has.slots, begin.slots)
        extent = Extent(
            size=self._count,
            sample=begin.shape[1:],
            table=(room_for(rows, has.table[0]), Column.HISTORY + slots),
            cond_table=(room_for(conds, has.cond_table[0]), begin.cond_table.shape[1]),
            slots=slots,
        )
        if old is not None and extent == has:
            return old
        self._prepare.require_fit(self.sizes[-1], slots, extent.table, extent.cond_table)
        pool = self._make(extent)
        if old is not None:
            self._move(old, pool)
        self._steps.clear()
        self._pools[:] = [pool]
        self._places = []  # D was in the old one
        return pool

    def _move(self, old: SlotPool, pool: SlotPool) -> None:
        larger = pool.arrays()
        for name, buffer in old.arrays().items():
            array = np.empty(buffer.shape, buffer.dtype)
            pool.device.download(buffer, array)
            pool.device.upload(larger[name], padded(array, larger[name].shape))
        self._tell(pool)

    def _tell(self, pool: SlotPool) -> None:
        """Upload which rows the samples stand at, and whose noise they take."""
        for buffer, array in (
            (pool.row, self._row),
            (pool.own, self._own),
            (pool.samples, self._samples),
            (pool.seeds, self._seeds),
        ):
            pool.device.upload(buffer, array)
