"""A batch in the host's memory, for libraries that run a graph on arrays bound beforehand."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftool.runtime.backends.prepare import Prepared
from difftool.runtime.protocols import Known

Floats = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
# (inputs, outputs), by their names in the step graph -> a run that reads the first and writes the
# second
Bind = Callable[[Arrays, Arrays], Callable[[], None]]


class HostBatch:
    """Two bindings that read each other's outputs: x, history and row swap sides every step.

    `taken` are the inputs that the graph has; a network without a conditioner takes no cond_table.
    With `one_row` the graph also takes one row number for all samples.
    """

    def __init__(
        self, bind: Bind, taken: Collection[str], begin: Prepared, *, one_row: bool = False
    ) -> None:
        rows, shape = begin.rows, begin.shape
        same = (rows.first == rows.first[0]).all()
        self._first = rows.first[:1] if one_row and same else rows.first
        self._side = 0
        self._x = [np.zeros(shape, np.float32) for _ in range(2)]
        self._history = [np.zeros((begin.slots, *shape), np.float32) for _ in range(2)]
        self._row = [np.zeros_like(self._first) for _ in range(2)]
        self._denoised = np.zeros(shape, np.float32)
        self._fixed = {
            "noise": np.zeros(shape, np.float32),
            "table": rows.table.astype(np.float32),
            "cond_table": begin.cond_table,
            **{name: np.zeros(shape, np.float32) for name in ("known", "mask") if name in taken},
        }
        self._run = [bind(*self._arrays(side, taken)) for side in range(2)]

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
        self._side = 0
        self._x[0][...] = x
        self._history[0][...] = 0 if history is None else history
        self._row[0][...] = self._first + row
        self._denoised[...] = 0 if denoised is None else denoised
        if known is not None or "known" in self._fixed:
            self._fixed["known"][...], self._fixed["mask"][...] = known or (0, 0)

    def step(self, noise: Floats | None) -> None:
        """Run the next row."""
        if noise is not None:
            self._fixed["noise"][...] = noise
        self._run[self._side]()
        self._side ^= 1

    @property
    def x(self) -> Floats:
        """Return the state [N, *S] after the last row; a view."""
        return self._x[self._side]

    @property
    def history(self) -> Floats:
        """Return the history [K, N, *S] after the last row; a view."""
        return self._history[self._side]

    @property
    def denoised(self) -> Floats:
        """Return D [N, *S] of the last row; a view."""
        return self._denoised

    def _arrays(self, side: int, taken: Collection[str]) -> tuple[Arrays, Arrays]:
        """Return the arrays that a step from this side reads, and those that it writes."""
        other = 1 - side
        inputs: dict[str, NDArray[Any]] = {
            "x": self._x[side],
            "history": self._history[side],
            "row": self._row[side],
            **self._fixed,
        }
        outputs: dict[str, NDArray[Any]] = {
            "x_next": self._x[other],
            "history_next": self._history[other],
            "row_next": self._row[other],
            "denoised": self._denoised,
        }
        return {name: array for name, array in inputs.items() if name in taken}, outputs
