"""A batch's buffers on the device, the engine bound to them, and the graphs captured of it."""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.noise import SAMPLING
from difftool.errors import ArtefactError, ResourceError
from difftool.log import logger
from difftool.runtime.cuda.device import Buffer, Device, Launch, StepEngine

# What one launch starts: a kernel, the engine's own graph of a row, a captured graph of two rows,
# or a loop over all rows.
Graphs = Literal["off", "rows", "pairs", "loop"]
Floats = NDArray[np.float32]

_log = logger(__name__)

ITEM: Final = 4  # elements of a sample that a thread of a kernel works on


@dataclass(frozen=True)
class Extent:
    """The sizes that shape a room's buffers: N samples of shape S, and the tables' shapes."""

    size: int
    sample: tuple[int, ...]
    table: tuple[int, ...]
    cond_table: tuple[int, ...]
    slots: int


@dataclass
class Launching:
    """The way in which all rooms of a backend launch rows; a refused capture changes it."""

    graphs: Graphs


def captured(capture: Callable[[], Launch], launching: Launching, less: Graphs) -> Launch | None:
    """Return what is captured; if the engine or CUDA refuses, launch with `less` from now on."""
    try:
        return capture()
    except (ArtefactError, ResourceError) as error:
        launching.graphs = less
        _log.warning("%s: CUDA graphs are %s from now on", error.message, less)
        return None


class Room:
    """Two sides that read each other's outputs: x, history and row swap sides every row.

    When it is made, all buffers are allocated, and the engine has run once on either side. A
    captured graph stays valid for every program, seed and set of samples of this extent.
    """

    def __init__(
        self, device: Device, engine: StepEngine, extent: Extent, launching: Launching
    ) -> None:
        self.device, self.extent = device, extent
        self._launching = launching
        self._captured: dict[tuple[str, bool], Launch] = {}
        batch = (extent.size, *extent.sample)
        real, integer, word = np.float32, np.int64, np.uint32
        self.x = [device.allocate(batch, real) for _ in range(2)]
        self.history = [device.allocate((extent.slots, *batch), real) for _ in range(2)]
        self.row = [device.allocate((extent.size,), integer) for _ in range(2)]
        self.noise = device.allocate(batch, real)
        self.denoised = device.allocate(batch, real)
        fixed: dict[str, tuple[int, ...]] = {
            "table": extent.table,
            "cond_table": extent.cond_table,
            "known": batch,
            "mask": batch,
        }
        self.fixed = {
            name: device.allocate(shape, real)
            for name, shape in fixed.items()
            if name in engine.inputs
        }
        self.draws = device.allocate((extent.table[0],), word)
        self.samples = device.allocate((extent.size,), word)
        self.seeds = device.allocate((extent.size,), np.uint64)
        self.end = device.allocate((1,), integer)
        # The start is draw 0, and so that of row 0 in a table of one row: both stay zeros.
        self._start_row = device.allocate((extent.size,), integer)
        self._start_draws = device.allocate((1,), word)
        # What `fixed` holds: the rows, and the conditioner's table as long as that lives.
        self._rows: bytes | None = None
        self._conds: weakref.ref[Floats] | None = None
        bound = engine.bind([self._tensors(side) for side in range(2)])
        self._runs = bound.runs
        self.replays = bound.replays
        self._capturable = bound.capturable
        self._warm_up()
        bound.keep()

    @property
    def graphs(self) -> Graphs:
        """Return how rows are launched: less than was asked for if an engine cannot be captured."""
        if self.replays:
            return "rows"
        return self._launching.graphs if self._capturable else "off"

    def hold(self, table: Floats, cond_table: Floats) -> None:
        """Upload the tables of a program, unless they are here since the last time.

        Every batch makes its rows anew, so these are compared. The conditioner's table may be of
        many megabytes, but `Preparation` keeps it, so its identity tells.
        """
        if (rows := table.tobytes()) != self._rows:
            self._rows = None  # until the upload is done
            self._fill("table", table)
            self._rows = rows
        if self._conds is None or self._conds() is not cond_table:
            self._conds = None
            self._fill("cond_table", cond_table)
            self._conds = weakref.ref(cond_table)

    def _fill(self, name: str, table: Floats) -> None:
        """Upload a table into the buffer of that name, if the engine takes one.

        The buffer may have more rows. No sample reads them: it begins at its block's first row, and
        runs no more rows than a block has. They are NaN, so that a sample which did would not be
        finite, which ends a run with an error.
        """
        if name not in self.fixed:
            return
        buffer = self.fixed[name]
        padded = np.full(buffer.shape, np.nan, np.float32)
        padded[: len(table)] = table
        self.device.upload(buffer, padded)

    def close(self) -> None:
        """Free all that is on the device, whoever else still holds this object."""
        vars(self).clear()

    def start(self, scale: float) -> None:
        """Draw x before the first row: `scale` times standard normals."""
        self._draw(self.x[0], self._start_row, self._start_draws, scale)

    def run(self, side: int, *, draw: bool) -> None:
        """Run one row from `side`, launch by launch; with `draw` its noise is drawn before."""
        if draw:
            self._draw(self.noise, self.row[side], self.draws)
        self._runs[side]()

    def advance(self, side: int, rows: int, end: int, *, draw: bool) -> int:
        """Launch `rows` rows from `side`, wait for nothing, and return the side that they end on.

        `end` is the row of the first sample after them.
        """
        while rows:
            taken = self._launch(side, rows, end, draw=draw)
            side, rows = side ^ (taken & 1), rows - taken
        return side

    def _launch(self, side: int, rows: int, end: int, *, draw: bool) -> int:
        """Start some of the rows, and return how many. Two rows, or a loop, begin on side 0."""
        if self.graphs in ("off", "rows"):
            self.run(side, draw=draw)
            return 1
        several = "loop" if self.graphs == "loop" else "pair"
        kind = "odd" if side == 1 else "even" if rows == 1 else several
        graph = self._captured.get((kind, draw)) or self._capture(kind, draw=draw)
        if graph is None:
            return 0
        single = rows % 2
        if kind == "loop":
            self.device.upload(self.end, np.array([end - single], np.int64))
        graph()
        return {"odd": 1, "even": 1, "pair": 2, "loop": rows - single}[kind]

    def _capture(self, kind: str, *, draw: bool) -> Launch | None:
        """Capture a graph of a row from side 0 ("even"), from side 1 ("odd"), or from both.

        Return None if the engine cannot be captured, after a warning; the rows then run one by one,
        and an engine that fails even so fails the run.
        """

        def enqueue() -> None:
            for side in {"even": (0,), "odd": (1,)}.get(kind, (0, 1)):
                self.run(side, draw=draw)

        def make() -> Launch:
            if kind == "loop":
                return self.device.capture_loop(enqueue, self.row[0], self.end)
            return self.device.capture(enqueue)

        graph = captured(make, self._launching, "pairs" if kind == "loop" else "off")
        if graph is not None:
            self._captured[kind, draw] = graph
        return graph

    def _draw(self, out: Buffer, row: Buffer, draws: Buffer, scale: float = 1) -> None:
        elements = int(np.prod(self.extent.sample))
        self.device.launch(
            "difftool_noise",
            [
                out,
                row,
                draws,
                self.samples,
                self.seeds,
                np.uint32(SAMPLING),
                np.float32(scale),
                np.int32(self.extent.size),
                np.int32(elements),
                np.int32(draws.shape[0]),
            ],
            self.extent.size * -(-elements // ITEM),
        )

    def _warm_up(self) -> None:
        """Run the engine once, which compiles and allocates: no capture may see that."""
        for side in range(2):
            self.device.clear(self.row[side])  # the other side's run has moved it on
            self.run(side, draw=True)

    def _tensors(self, side: int) -> Mapping[str, Buffer]:
        other = 1 - side
        return {
            "x": self.x[side],
            "history": self.history[side],
            "row": self.row[side],
            "noise": self.noise,
            **self.fixed,
            "x_next": self.x[other],
            "history_next": self.history[other],
            "row_next": self.row[other],
            "denoised": self.denoised,
        }
