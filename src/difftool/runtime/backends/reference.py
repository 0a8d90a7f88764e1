"""The reference: rows in numpy and float64, for any function as the network; made for proofs."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program

Array = NDArray[np.float64]
# (x [N, *S], cond [N]), and label [N] if there are labels -> F [N, *S or twice the channels]
Network = Callable[..., Array]


class Reference:
    """Programs on a network that is a plain function of (x, cond), or (x, cond, label)."""

    name = "reference"
    features = frozenset(Feature)

    def __init__(
        self,
        network: Network,
        shape: tuple[int, ...],
        *,
        learned_variance: bool = False,
        null_label: int | None = None,
    ) -> None:
        self._network = network
        self._shape = shape
        self._learned_variance = learned_variance
        self._null_label = null_label

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> "ReferenceBatch":
        """Make room for `size` samples of a program."""
        return ReferenceBatch(
            self._evaluation(labels), program, (size, *self._shape), self._learned_variance
        )

    def _evaluation(self, labels: Labels | None) -> Network:
        """Return F of (x, cond) for these labels, guided."""
        if labels is None:
            return self._network
        null, scale = self._null_label, labels.guidance_scale

        def guided(x: Array, cond: Array) -> Array:
            wanted = self._network(x, cond, labels.of)
            if scale == 1:
                return wanted
            unconditional = self._network(x, cond, np.full_like(labels.of, null))
            output = unconditional + scale * (wanted - unconditional)
            if self._learned_variance:
                half = output.shape[1] // 2
                output[:, half:] = wanted[:, half:]
            return output

        return guided


class ReferenceBatch:
    """The update of `difftool.diffusion.program`, spelled out."""

    def __init__(
        self, network: Network, program: Program, shape: tuple[int, ...], learned_variance: bool
    ) -> None:
        self._network = network
        self._program = program
        self._learned_variance = learned_variance
        self._known: tuple[Array, ...] | None = None
        self._row = 0
        self.x: Array = np.zeros(shape)
        self.denoised: Array = np.zeros(shape)
        self.history: Array = np.zeros((program.history, *shape))

    def start(
        self,
        x: ArrayLike,
        *,
        row: int = 0,
        history: ArrayLike | None = None,
        denoised: ArrayLike | None = None,
        known: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> None:
        """Begin at a row; see `difftool.runtime.protocols.Batch`."""
        self._row = row
        self.x = np.array(x, np.float64)
        empty = np.zeros((self._program.history, *self.x.shape))
        self.history = empty if history is None else np.array(history, np.float64)
        self.denoised = np.array(np.zeros_like(self.x) if denoised is None else denoised)
        self._known = None if known is None else tuple(np.asarray(part) for part in known)

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
        if self._known is not None:
            known, mask = self._known
            self.denoised = mask * known + (1 - mask) * self.denoised
        after = row[Column.A] * self.x + row[Column.B] * self.denoised + row[Column.G] * network
        after = after + np.tensordot(row[Column.HISTORY :], self.history, axes=1)
        fresh = spread * np.asarray(0.0 if noise is None else noise, np.float64)
        if row[Column.SNR] or row[Column.BATCH_SNR]:
            after = _adaptive(self.x, after - self.x, fresh, row)
        else:
            after = after + fresh
        pushed = row[Column.E] * self.x + row[Column.F] * self.denoised
        self.history = np.concatenate([pushed[None], self.history[:-1]])
        self.x = after
        self._row += 1


def _adaptive(x: Array, drift: Array, fresh: Array, row: Array) -> Array:
    """Return x + r^2 * drift + r * fresh; r is the snr times the ratio of the norms."""
    axes = tuple(range(1, x.ndim))
    drifts = np.sqrt((drift**2).sum(axes, keepdims=True))
    noises = np.sqrt((fresh**2).sum(axes, keepdims=True))
    ratio = (
        row[Column.SNR] * noises / drifts + row[Column.BATCH_SNR] * noises.mean() / drifts.mean()
    )
    return np.asarray(x + ratio**2 * drift + ratio * fresh)
