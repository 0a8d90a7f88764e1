"""A batch in the host's memory, for libraries that run a graph on arrays bound beforehand."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.columns import Column
from difftool.preflight import GUIDED
from difftool.runtime.backends.prepare import Prepared
from difftool.runtime.protocols import Known

Floats = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
"""Arrays by their names, such as the inputs of a graph."""
# (inputs, outputs), by their names in the step graph -> a run that reads the first and writes the
# second
Bind = Callable[[Arrays, Arrays], Callable[[], None]]


class HostBatch:
    """Two bindings that read each other's outputs: x, history and row swap sides every step.

    `taken` are the inputs that the graph has; a network without a conditioner takes no cond_table.
    With `one_row` the graph also takes one row number for all samples. `denoised` is D [N, *S] of
    the last row.
    """

    def __init__(
        self, bind: Bind, taken: Collection[str], begin: Prepared, *, one_row: bool = False
    ) -> None:
        rows, shape = begin.rows, begin.shape
        same = (rows.first == rows.first[0]).all()
        self._first = rows.first[:1] if one_row and same else rows.first
        self._side = 0
        self._sides: list[Arrays] = [
            {
                "x": np.zeros(shape, np.float32),
                "history": np.zeros((begin.slots, *shape), np.float32),
                "row": np.zeros_like(self._first),
            }
            for _ in range(2)
        ]
        self.denoised: Floats = np.zeros(shape, np.float32)
        self._fixed: dict[str, NDArray[Any]] = {
            "noise": np.zeros(shape, np.float32),
            "table": rows.table.astype(np.float32, copy=False),
            "cond_table": begin.cond_table,
            **{name: np.zeros(shape, np.float32) for name in ("known", "mask") if name in taken},
        }
        self._guided = np.ones(1, np.int64) if GUIDED in taken else None
        if self._guided is not None:
            self._fixed[GUIDED] = self._guided
        self._run = [bind(*self._arrays(side, taken)) for side in range(2)]

    def start(
        self,
        x: Floats,
        *,
        row: int | NDArray[np.int64] = 0,
        history: Floats | None = None,
        denoised: Floats | None = None,
        known: Known | None = None,
    ) -> None:
        """Begin at a row, or at one for each sample; see `difftool.runtime.protocols.Batch`."""
        self._side = 0
        self.x[...] = x
        self.history[...] = 0 if history is None else history
        self._sides[0]["row"][...] = self._first + row
        self.denoised[...] = 0 if denoised is None else denoised
        if known is not None or "known" in self._fixed:
            self._fixed["known"][...], self._fixed["mask"][...] = known or (0, 0)

    def step(self, noise: Floats | None) -> None:
        """Run the next row."""
        if noise is not None:
            self._fixed["noise"][...] = noise
        if self._guided is not None:  # without guidance the network runs once for each sample
            self._guided[0] = (self._fixed["table"][self.row, Column.GUIDANCE] != 1).any()
        self._run[self._side]()
        self._side ^= 1

    @property
    def x(self) -> Floats:
        """Return the state [N, *S] after the last row; a view."""
        return self._sides[self._side]["x"]

    @property
    def row(self) -> NDArray[np.int64]:
        """Return the number of the next row, [N] or [1]; a view."""
        return np.asarray(self._sides[self._side]["row"])

    @property
    def noise(self) -> Floats:
        """Return the noise [N, *S] of the last row, which the next one takes; a view."""
        return self._fixed["noise"]

    @property
    def history(self) -> Floats:
        """Return the history [K, N, *S] after the last row; a view."""
        return self._sides[self._side]["history"]

    def _arrays(self, side: int, taken: Collection[str]) -> tuple[Arrays, Arrays]:
        """Return the arrays that a step from this side reads, and those that it writes."""
        inputs = {**self._sides[side], **self._fixed}
        after = {f"{name}_next": array for name, array in self._sides[1 - side].items()}
        reads = {name: array for name, array in inputs.items() if name in taken}
        return reads, {**after, "denoised": self.denoised}
