"""PyTorch, eager: the oracle that every other backend is verified against."""

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from difftool.diffusion.columns import Column
from difftool.diffusion.labels import Labels, Rows, rows_of
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.export.onnx import step_module

Floats = NDArray[np.float32]


class Eager:
    """Runs the step module as PyTorch runs it; the same protocol as the runtime's backends."""

    name = "torch"

    def __init__(self, network: nn.Module, spec: ModelSpec, fused: Collection[str] = ()) -> None:
        self.fused = frozenset(fused)
        self._module = step_module(network, spec, fused)
        self._spec = spec

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> "EagerBatch":
        """Room for `size` samples of a program."""
        rows = rows_of(program, self._spec, size, labels)
        return EagerBatch(self._module, program, rows, (size, *self._spec.shape))


class EagerBatch:
    """Samples on their way through a program."""

    def __init__(
        self, module: nn.Module, program: Program, rows: Rows, shape: tuple[int, ...]
    ) -> None:
        self._module = module
        self._program = program.table
        self._table = torch.from_numpy(rows.table.astype(np.float32))
        self._first = torch.from_numpy(rows.first)
        inputs = [torch.from_numpy(rows.conds.astype(np.float32))]
        if rows.labels is not None:
            inputs.append(torch.from_numpy(rows.labels))
        with torch.inference_mode():
            self._cond_table = module.network.condition(*inputs)  # type: ignore[union-attr, operator]
        self._held: tuple[Tensor, ...] = ()
        self._shape = shape
        self._slots = program.history
        self.start(np.zeros(shape, np.float32))

    def start(self, x: Floats, *, row: int = 0, history: Floats | None = None) -> None:
        """Begin at a row from x [N, *S] and history [K, N, *S], which is empty by default."""
        empty = np.zeros((self._slots, *self._shape), np.float32)
        self._x = torch.from_numpy(np.array(x, np.float32))
        self._history = torch.from_numpy(
            empty if history is None else np.array(history, np.float32)
        )
        self._row = self._first + row
        self._done = row
        self._denoised = torch.zeros(self._shape)

    def hold(self, known: Floats, mask: Floats) -> None:
        """Replace D by `known` where `mask` is 1, in every row from now on."""
        self._held = torch.from_numpy(known), torch.from_numpy(mask)

    def revise(self, denoised: Floats) -> None:
        """Take the last row again with this D."""
        row = self._program[self._done - 1]
        change = torch.from_numpy(denoised) - self._denoised
        self._x = self._x + row[Column.B] * change
        self._history[0] += row[Column.F] * change
        self._denoised = self._denoised + change

    def step(self, noise: Floats | None) -> None:
        """Run the next row."""
        drawn: Tensor = torch.zeros(self._shape) if noise is None else torch.from_numpy(noise)
        with torch.inference_mode():
            self._x, self._history, self._row, self._denoised = self._module(
                self._x,
                self._history,
                self._row,
                drawn,
                self._table,
                self._cond_table,
                *self._held,
            )
        self._done += 1

    @property
    def x(self) -> Floats:
        """The state [N, *S] after the last row."""
        return self._x.numpy()

    @property
    def history(self) -> Floats:
        """The history [K, N, *S] after the last row."""
        return self._history.numpy()

    @property
    def denoised(self) -> Floats:
        """D [N, *S] of the last row."""
        return self._denoised.numpy()
