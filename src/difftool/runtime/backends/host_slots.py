"""Slots in the host's memory, for every library that runs a `HostBatch`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels, Rows
from difftool.diffusion.program import Program
from difftool.runtime.backends.common_table import batch_sizes, padded, placed_rows, room_for
from difftool.runtime.backends.host import Arrays, HostBatch
from difftool.runtime.backends.prepare import Preparation, Prepared
from difftool.runtime.draws import row_noise
from difftool.runtime.scheduling.slots import IDLE, Entry

Floats = NDArray[np.float32]
# (the common tables for a batch, what `derive` made of all rows) -> that batch
Make = Callable[[Prepared, Arrays], HostBatch]
Derive = Callable[[Floats], Arrays]


class HostSlots:
    """`count` slots, of which `most` run together; see `difftool.runtime.scheduling.slots.Slots`.

    There is a batch for each size, over the same tables. The samples that were chosen last stay in
    its arrays, so nothing is copied as long as the same ones are chosen. `derive` returns what a
    library needs to know of rows beside the table: arrays with an entry for each row.
    """

    def __init__(
        self,
        prepare: Preparation,
        make: Make,
        count: int,
        most: int,
        derive: Derive = lambda table: {},
    ) -> None:
        self._prepare, self._make, self._derive = prepare, make, derive
        self.sizes = tuple(batch_sizes(most))
        self._batches: dict[int, HostBatch] = {}
        self._places: list[int] = []  # the slots whose samples are in a batch's arrays
        self._noise: list[Iterator[Floats | None]] = [iter(())] * count
        self._holds_known = Feature.KNOWN in prepare.features
        each = (count, *prepare.shape)
        self._x, self._drawn = np.zeros(each, np.float32), np.zeros(each, np.float32)
        self._row = np.zeros(count, np.int64)
        self._known = np.zeros((2, *(each if self._holds_known else (0,))), np.float32)
        # These four grow with the programs that are placed.
        self._history = np.zeros((0, *each), np.float32)
        self._table = np.zeros((0, Column.HISTORY), np.float32)
        self._cond_table = np.zeros((0, 0), np.float32)
        self._derived: dict[str, NDArray[Any]] = {}

    def place(self, program: Program, labels: Labels | None, row: int, cond: int) -> None:
        """Write the rows that one sample runs into the common table."""
        begin = self._prepare(program, 1, labels)
        table, conds = placed_rows(begin, cond), begin.cond_table
        self._make_room(begin, row + len(table), cond + len(conds))
        written = slice(row, row + len(table))
        self._table[written] = 0
        self._table[written, : table.shape[1]] = table
        self._cond_table[cond : cond + len(conds)] = conds
        for name, found in self._derive(table).items():
            room = np.zeros(len(self._table), found.dtype)
            self._derived.setdefault(name, room)[written] = found

    def join(self, slot: int, entry: Entry) -> None:
        """Put a sample into a slot."""
        self._unpack()
        self._x[slot], self._row[slot] = entry.x, entry.row
        self._history[:, slot] = 0
        self._drawn[slot] = 0
        if self._holds_known:
            self._known[:, slot] = 0 if entry.known is None else np.concatenate(entry.known)
        self._noise[slot] = row_noise(entry.program, entry.draws)

    def advance(self, places: Sequence[int]) -> None:
        """Run the next row of the samples in these slots together."""
        if places != self._places:
            self._unpack()
            self._pack(list(places))
        batch = self._batches[len(places)]
        for noise, place in self._drawing:
            # The last noise stays for a row that uses none, as in a batch that runs alone.
            if (drawn := next(noise)) is not None:
                batch.noise[place] = drawn[0]
        batch.step(None)

    def read(self, slot: int, what: Literal["x", "denoised"]) -> Floats:
        """Return x [*S] of a slot, or D of its last row; a view."""
        if slot not in self._places:
            return np.asarray(self._x[slot])
        batch = self._batches[len(self._places)]
        array = batch.x if what == "x" else batch.denoised
        return np.asarray(array[self._places.index(slot)])

    def _pack(self, places: list[int]) -> None:
        """Copy samples into a batch; an idle place repeats the first one, and is as finite."""
        size = len(places)
        there = [place for place, slot in enumerate(places) if slot != IDLE]
        if size not in self._batches:
            self._batches[size] = self._new_batch(size)
        self._there, self._slots = there, np.array([places[place] for place in there])
        self._drawing = [(self._noise[places[place]], place) for place in there]
        source = np.array([places[there[0]] if slot == IDLE else slot for slot in places])
        known = (self._known[0][source], self._known[1][source]) if self._holds_known else None
        batch = self._batches[size]
        batch.noise[...] = self._drawn[source]
        batch.start(
            self._x[source],
            row=self._row[source],
            history=self._history[:, source],
            known=known,
        )
        self._places = places

    def _unpack(self) -> None:
        """Copy the samples out of the batch in which they are."""
        if not self._places:
            return
        batch, there, slots = self._batches[len(self._places)], self._there, self._slots
        self._x[slots] = batch.x[there]
        self._history[:, slots] = batch.history[:, there]
        self._drawn[slots] = batch.noise[there]
        self._row[slots] = batch.row[there]
        self._places = []

    def _new_batch(self, size: int) -> HostBatch:
        shape = (size, *self._prepare.shape)
        tables = self._table.shape, self._cond_table.shape
        self._prepare.require_fit(size, len(self._history), *tables)
        rows = Rows(self._table, np.zeros(0), None, np.zeros(size, np.int64))
        return self._make(Prepared(rows, self._cond_table, shape), self._derived)

    def _make_room(self, begin: Prepared, rows: int, conds: int) -> None:
        """Enlarge the tables to so many rows and conds, and the history to enough entries.

        What is there stays, also if memory runs out. Batches are bound to the arrays, and so are
        made again.
        """
        slots = max(len(self._history), begin.slots)
        size = (room_for(rows, len(self._table)), Column.HISTORY + slots)
        outputs = (room_for(conds, len(self._cond_table)), begin.cond_table.shape[1])
        if size == self._table.shape and outputs == self._cond_table.shape:
            return
        self._unpack()
        table, cond_table = padded(self._table, size), padded(self._cond_table, outputs)
        history = padded(self._history, (slots, *self._history.shape[1:]))
        derived = {name: padded(a, size[:1]) for name, a in self._derived.items()}
        self._batches.clear()
        self._table, self._cond_table = table, cond_table
        self._history, self._derived = history, derived
