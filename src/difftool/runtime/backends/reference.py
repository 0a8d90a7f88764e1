"""The reference: rows in numpy, float64, for any function as the network. For proofs."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program

Array = NDArray[np.float64]
Network = Callable[
    [Array, Array], Array
]  # (x [N, *S], cond [N]) -> F [N, *S or twice the channels]


class Reference:
    """Runs programs on a network that is a plain function of (x, cond)."""

    name = "reference"

    def __init__(
        self, network: Network, shape: tuple[int, ...], *, learned_variance: bool = False
    ) -> None:
        self._network = network
        self._shape = shape
        self._learned_variance = learned_variance

    def batch(self, program: Program, size: int) -> "ReferenceBatch":
        """Room for `size` samples of a program."""
        return ReferenceBatch(self._network, program, (size, *self._shape), self._learned_variance)


class ReferenceBatch:
    """The fused update of `difftool.diffusion.program`, spelled out."""

    def __init__(
        self, network: Network, program: Program, shape: tuple[int, ...], learned_variance: bool
    ) -> None:
        self._network = network
        self._program = program
        self._learned_variance = learned_variance
        self._row = 0
        self.x: Array = np.zeros(shape)
        self.denoised: Array = np.zeros(shape)
        self.history: Array = np.zeros((program.history, *shape))

    def start(self, x: ArrayLike, *, row: int = 0, history: ArrayLike | None = None) -> None:
        """Begin at a row from x [N, *S] and history [K, N, *S], which is empty by default."""
        self._row = row
        self.x = np.array(x, np.float64)
        empty = np.zeros((self._program.history, *self.x.shape))
        self.history = empty if history is None else np.array(history, np.float64)

    def step(self, noise: ArrayLike | None) -> None:
        """Run the next row."""
        row = self._program.table[self._row]
        cond = np.full(len(self.x), self._program.conds[int(row[Column.COND])])
        network = self._network(row[Column.C_IN] * self.x, cond)
        spread: Array | np.float64 = row[Column.D]
        if self._learned_variance:
            network, fraction = np.split(network, 2, axis=1)
            low, high = row[Column.LOGVAR_MIN], row[Column.LOGVAR_MAX]
            spread = spread * np.exp(0.5 * (low + (fraction + 1) / 2 * (high - low)))
        denoised = row[Column.C_SKIP] * self.x + row[Column.C_OUT] * network
        self.denoised = np.clip(denoised, row[Column.CLIP_LOW], row[Column.CLIP_HIGH])
        after = row[Column.A] * self.x + row[Column.B] * self.denoised + row[Column.G] * network
        after = after + np.tensordot(row[Column.HISTORY :], self.history, axes=1)
        if noise is not None:
            after = after + spread * np.asarray(noise, np.float64)
        pushed = row[Column.E] * self.x + row[Column.F] * self.denoised
        self.history = np.concatenate([pushed[None], self.history[:-1]])
        self.x = after
        self._row += 1
