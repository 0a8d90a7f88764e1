"""A batch's buffers on the device, the engine bound to them, and the graphs captured of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from difftool.diffusion.noise import SAMPLING
from difftool.errors import ResourceError
from difftool.log import logger
from difftool.runtime.cuda.device import Buffer, Device, Launch, StepEngine

# What one launch starts: a kernel, a captured graph of two rows, or a loop over all rows.
Graphs = Literal["off", "pairs", "loop"]

_log = logger(__name__)

_PER_THREAD: Final = 4  # elements that a thread of the noise kernel writes


@dataclass(frozen=True)
class Extent:
    """The sizes that shape a room's buffers: N samples of shape S, and the tables' shapes."""

    size: int
    sample: tuple[int, ...]
    table: tuple[int, ...]
    cond_table: tuple[int, ...]
    slots: int


class Room:
    """Two sides that read each other's outputs: x, history and row swap sides every row.

    When it is made, all buffers are allocated, and the engine has run once on either side. A
    captured graph stays valid for every program, seed and set of samples of this extent.
    """

    def __init__(self, device: Device, engine: StepEngine, extent: Extent, graphs: Graphs) -> None:
        self.device, self.extent = device, extent
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
        self.seed = device.allocate((1,), np.uint64)
        self.end = device.allocate((1,), integer)
        bound = engine.bind([self._tensors(side) for side in range(2)])
        self._runs = bound.runs
        self.graphs: Graphs = graphs if bound.capturable else "off"
        self._warm_up()
        bound.keep()

    def run(self, side: int, *, draw: bool) -> None:
        """Run one row from `side`, launch by launch; with `draw` its noise is drawn before."""
        if draw:
            self._draw(side)
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
        if self.graphs == "off":
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

        Return None if the engine cannot be captured, after a warning; the rows then run one by one.
        """

        def enqueue() -> None:
            for side in {"even": (0,), "odd": (1,)}.get(kind, (0, 1)):
                self.run(side, draw=draw)

        try:
            graph = (
                self.device.capture_loop(enqueue, self.row[0], self.end)
                if kind == "loop"
                else self.device.capture(enqueue)
            )
        except ResourceError as error:
            self.graphs = "pairs" if kind == "loop" else "off"
            _log.warning("%s: CUDA graphs are %s from now on", error.message, self.graphs)
            return None
        self._captured[kind, draw] = graph
        return graph

    def _draw(self, side: int) -> None:
        elements = int(np.prod(self.extent.sample))
        self.device.launch(
            "difftool_noise",
            [
                self.noise,
                self.row[side],
                self.draws,
                self.samples,
                self.seed,
                np.uint32(SAMPLING),
                np.int32(self.extent.size),
                np.int32(elements),
                np.int32(self.extent.table[0]),
            ],
            self.extent.size * -(-elements // _PER_THREAD),
        )

    def _warm_up(self) -> None:
        """Run the engine once, which compiles and allocates: no capture may see that."""
        zeros = np.zeros(self.extent.size, np.int64)
        for side in range(2):
            self.device.upload(self.row[side], zeros)  # the other side's run has moved it on
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
