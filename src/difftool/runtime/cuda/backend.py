"""The backend that runs every engine on a GPU."""

import contextlib
import threading
import weakref
from collections import deque
from typing import Final

import numpy as np

from difftool.bundle import Bundle
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.errors import ResourceError, UsageError, is_out_of_memory
from difftool.preflight import OnnxFile
from difftool.runtime.backends.prepare import Preparation
from difftool.runtime.cuda.batch import DeviceBatch
from difftool.runtime.cuda.device import Device, StepEngine
from difftool.runtime.cuda.room import Extent, Graphs, Room
from difftool.runtime.memory import no_memory

_FREE_ROOMS: Final = 2  # kept for the next batch of the same extent; each holds device memory


class DeviceBackend:
    """A bundle's step engine on a device; `name` is that of the kind of engine.

    `step` is the graph that it runs, if that is a file of the bundle. The rooms of batches that are
    gone are used again. Any thread may make and run batches; one at a time is on the stream, which
    all share.
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
        self.device, self.engine = device, engine
        self._prepare = Preparation(bundle, step)
        self.features = self._prepare.features
        self._graphs: Graphs = graphs
        self._free: deque[Room] = deque(maxlen=_FREE_ROOMS)
        self._lock = threading.RLock()

    @property
    def device_name(self) -> str:
        """Return the name of the GPU."""
        return self.device.name

    @property
    def graphs(self) -> str:
        """Return how rows are launched as CUDA graphs, or "off"."""
        return self._graphs

    @property
    def best_batch(self) -> int:
        """Return how many samples run best together."""
        return self.engine.best

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> DeviceBatch:
        """Make room for `size` samples of a program; sizes below the engine's profile are padded.

        UsageError if the size is above the profile, or if padding would change the samples.
        """
        begin = self._prepare(program, size, labels)
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
        tables = {"table": begin.rows.table.astype(np.float32), "cond_table": begin.cond_table}
        extent = Extent(
            size=max(size, fewest),
            sample=begin.shape[1:],
            table=tables["table"].shape,
            cond_table=tables["cond_table"].shape,
            slots=program.history,
        )
        with self._lock:
            room = self._room(extent)
            for name in tables.keys() & room.fixed.keys():
                self.device.upload(room.fixed[name], tables[name])
            blocks = len(tables["table"]) // len(program)
            self.device.upload(room.draws, np.tile(program.draws, blocks).astype(np.uint32))
            batch = DeviceBatch(room, program, begin.rows.first, size, self._lock)
        # A batch may be collected at any moment, on any thread: to append is safe even then.
        weakref.finalize(batch, self._free.append, room)
        return batch

    def _room(self, extent: Extent) -> Room:
        for room in list(self._free):
            if room.extent == extent:
                with contextlib.suppress(ValueError):  # another batch has just pushed it out
                    self._free.remove(room)
                    return room
        try:
            return Room(self.device, self.engine, extent, self._graphs)
        except ResourceError as error:
            if is_out_of_memory(error.__cause__ or error):
                raise no_memory(extent.size) from error
            raise
