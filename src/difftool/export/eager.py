"""PyTorch, eager: the oracle that every other backend is verified against."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.export.onnx import step_module

Floats = NDArray[np.float32]


class Eager:
    """Runs the step module as PyTorch runs it; the same protocol as the runtime's backends."""

    name = "torch"

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        self._module = step_module(network, spec)
        self._shape = spec.shape

    def batch(self, program: Program, size: int) -> "EagerBatch":
        """Room for `size` samples of a program."""
        return EagerBatch(self._module, program, (size, *self._shape))


class EagerBatch:
    """Samples on their way through a program."""

    def __init__(self, module: nn.Module, program: Program, shape: tuple[int, ...]) -> None:
        self._module = module
        self._table = torch.from_numpy(program.table.astype(np.float32))
        with torch.inference_mode():
            conds = torch.from_numpy(program.conds.astype(np.float32))
            self._cond_table = module.network.condition(conds)  # type: ignore[union-attr, operator]
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
        self._row = torch.full((self._shape[0],), row)
        self._denoised = torch.zeros(self._shape)

    def step(self, noise: Floats | None) -> None:
        """Run the next row."""
        drawn: Tensor = torch.zeros(self._shape) if noise is None else torch.from_numpy(noise)
        with torch.inference_mode():
            self._x, self._history, self._row, self._denoised = self._module(
                self._x, self._history, self._row, drawn, self._table, self._cond_table
            )

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
