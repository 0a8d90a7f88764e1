"""The backend that runs every engine on a GPU."""

import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import numpy as np

from difftool.bundle import Bundle
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.errors import ResourceError, UsageError, is_out_of_memory
from difftool.preflight import OnnxFile
from difftool.runtime.backends.common_table import batch_sizes
from difftool.runtime.backends.prepare import Preparation, Prepared
from difftool.runtime.cuda.batch import DeviceBatch
from difftool.runtime.cuda.device import Device, StepEngine
from difftool.runtime.cuda.owner import Owner
from difftool.runtime.cuda.room import Extent, Graphs, Launching, Room
from difftool.runtime.cuda.slot_pool import SlotPool
from difftool.runtime.cuda.slots import DeviceSlots
from difftool.runtime.memory import no_memory

T = TypeVar("T")

_ROOMS: Final = 4  # that are kept for the next batches; each holds device memory
_FEWEST_ROWS: Final = 64  # of a table in a room
_MOST_ROWS: Final = 1 << 14  # of a table that is padded: an engine's profile has an end


class DeviceBackend:
    """A bundle's step engine on a device; `name` is that of the kind of engine.

    `step` is the graph that it runs, if that is a file of the bundle. Any thread may make and run
    batches; one thread of the backend's own does all that is done on the device. The rooms of
    batches that are gone are used again, and since sizes are rounded up, few are ever made.
    """

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        device: Device,
        engine: StepEngine,
        graphs: Graphs = "pairs",
        step: OnnxFile | None = None,
    ) -> None:
        self.name = name
        self._prepare = Preparation(bundle, step)
        self.features = self._prepare.features
        self._launching = Launching(graphs)
        self._held = _Held(device, engine)
        self._owner = Owner(at_end=self._held.close)
        self._last: weakref.ref[Room] | None = None  # that a batch was made in

    @property
    def device(self) -> Device:
        """Return the device, which only the owner's thread may use."""
        return self._held.device

    @property
    def engine(self) -> StepEngine:
        """Return the engine, which only the owner's thread may run."""
        return self._held.engine

    @property
    def best_batch(self) -> int:
        """Return how many samples run best together."""
        return self.engine.best

    @property
    def device_name(self) -> str:
        """Return the GPU's name, such as "NVIDIA H100 80GB HBM3"."""
        return self.device.name

    @property
    def graphs(self) -> Graphs:
        """Return how the last batch was launched; before there is one, how it will be tried."""
        room = None if self._last is None else self._last()
        return self._launching.graphs if room is None else room.graphs

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> DeviceBatch:
        """Make room for `size` samples of a program; sizes below the engine's profile are padded.

        UsageError if the size is above the profile, or if padding would change the samples.
        """
        begin = self._prepare(program, size, labels)
        self._require_size(size)
        fewest, _ = self.engine.sizes
        if size < fewest and program.coupled:
            raise UsageError(
                f"steps adapt to the mean of a batch of {size}, which the engine pads to {fewest}",
                f"draw at least {fewest} samples, or {self.engine.wider(size)}",
            )
        return self._owner.call(lambda: self._batch(program, size, begin))

    def slots(self, count: int, most: int) -> DeviceSlots:
        """Return slots that share steps; see `difftool.runtime.scheduling.slots.OffersSlots`.

        The largest step has the size of a full batch, so that both round alike.
        """
        self._require_size(most)

        def pool(extent: Extent) -> SlotPool:
            return self._allocated(
                lambda: SlotPool(self.device, self.engine, extent, self._launching), extent.size
            )

        return DeviceSlots(
            prepare=self._prepare,
            owner=self._owner,
            make=pool,
            allocated=self._allocated,
            sizes=sorted({self._padded(size) for size in batch_sizes(most)}),
            count=count,
            left=self._held.left,
        )

    def _require_size(self, size: int) -> None:
        fewest, most = self.engine.sizes
        if size > most:
            raise UsageError(
                f"a batch of {size}, and the engine takes {fewest} to {most}",
                f"use max_batch {most}, or {self.engine.wider(size)}",
            )

    def _padded(self, size: int) -> int:
        """Return how many samples the engine runs for a batch of `size`."""
        fewest, most = self.engine.sizes
        return max(min(_padded_batch(size, self.engine.best), most), fewest)

    def _batch(self, program: Program, size: int, begin: Prepared) -> DeviceBatch:
        table = begin.rows.table.astype(np.float32)
        extent = Extent(
            # The mean over a coupled batch would be taken over the padding as well.
            size=size if program.coupled else self._padded(size),
            sample=begin.shape[1:],
            table=(_padded_rows(len(table)), table.shape[1]),
            cond_table=(_padded_rows(len(begin.cond_table)), begin.cond_table.shape[1]),
            slots=program.history,
        )
        room = self._room(extent)
        room.hold(table, begin.cond_table)
        draws = np.zeros(room.draws.shape, np.uint32)
        draws[: len(table)] = np.tile(program.draws, len(table) // len(program))
        self.device.upload(room.draws, draws)
        batch = DeviceBatch(room, program, begin.rows.first, size, self._owner)
        # A batch may be collected at any moment, on any thread: to put is safe even then.
        weakref.finalize(batch, self._held.left.put, room).atexit = False
        self._last = weakref.ref(room)
        return batch

    def _room(self, extent: Extent) -> Room:
        free = self._held.taken_back()
        found = next((room for room in free if room.extent == extent), None)
        if found is not None:
            free.remove(found)
            return found
        # What ONNX Runtime captured stays until its session ends, so the rooms of those graphs,
        # which are few, stay as well. Of all others the ones used longest ago make way.
        released = [room for room in free if not room.replays][: 1 - _ROOMS]
        free[:] = [room for room in free if room not in released]
        del released
        return self._allocated(
            lambda: Room(self.device, self.engine, extent, self._launching), extent.size
        )

    def _allocated(self, make: Callable[[], T], size: int) -> T:
        """Return what `make` allocates for `size` samples; rooms that are kept make way for it."""
        free = self._held.taken_back()
        try:
            return make()
        except ResourceError as error:
            if not is_out_of_memory(error.__cause__ or error):
                raise
            if not free:
                raise no_memory(size) from error
        free.clear()  # not within `except`, since the error holds what was allocated
        return self._allocated(make, size)


class _Held:
    """All that a backend has on its device, for the owner's thread alone to free.

    Whoever drops the backend still holds this for a moment, but nothing that is in it.
    """

    def __init__(self, device: Device, engine: StepEngine) -> None:
        self.device, self.engine = device, engine
        # The rooms of batches that are gone, and the pools and steps of slots that are.
        self.left: SimpleQueue[Any] = SimpleQueue()
        self._free: list[Room] = []  # the room that was used last is the last

    def taken_back(self) -> list[Room]:
        """Return the rooms that are free now; pools of slots that are gone are freed here."""
        while not self.left.empty():
            if isinstance(left := self.left.get(), Room):
                self._free.append(left)
            else:
                for part in left:
                    part.clear()
        return self._free

    def close(self) -> None:
        """Free everything. Batches and slots hold the owner, so none are left but at the exit."""
        for room in self.taken_back():
            room.close()
        vars(self).clear()


def padded_size(size: int, steps: int) -> int:
    """Round up to one of `steps` sizes between a power of two and the next."""
    unit = max(1, (1 << (size - 1).bit_length()) // (2 * steps))
    return -(-size // unit) * unit


def _padded_batch(size: int, best: int) -> int:
    """Round up to the sizes of a room: the best one is among them, since most batches have it."""
    padded = padded_size(size, 4)
    return best if size <= best < padded else padded


def _padded_rows(rows: int) -> int:
    return max(_FEWEST_ROWS, padded_size(rows, 1)) if rows <= _MOST_ROWS else rows
