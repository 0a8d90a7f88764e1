"""The noise of a run: which numbers reach which sample at which row."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.diffusion import noise
from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.errors import UsageError

Floats = NDArray[np.float32]

# Noise numbers drawn at once: numpy's overhead is shared, and the cache still holds them.
_BLOCK: Final = 1 << 16


@dataclass(frozen=True)
class Draws:
    """The noise of samples of a seed, by their indices int64 [N].

    With `angles` [N] a sample's noise lies between those of two samples: it is cos(angle) times the
    noise of `samples[:, 0]` plus sin(angle) times that of `samples[:, 1]`, which is normal again.
    """

    seed: int
    samples: NDArray[np.int64]
    shape: tuple[int, ...]
    angles: NDArray[np.float64] | None = None

    def normal(self, draws: ArrayLike) -> Floats:
        """Draw standard normal float32 [*D, N, *S] for draws [*D]."""
        if self.angles is None:
            return noise.normal(self.seed, draws, self.samples, self.shape)
        first, second = (noise.normal(self.seed, draws, end, self.shape) for end in self.samples.T)
        angles = self.angles.reshape(-1, *(1 for _ in self.shape))
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        return np.asarray(cos * first + sin * second)

    def uniform(self, draw: int) -> Floats:
        """Draw uniform float32 [N, *S]; UsageError between two samples."""
        if self.angles is not None:
            raise UsageError(
                "a uniform start has nothing between two samples",
                'use a sampler that starts from a normal, or its argument start="normal(1.0)"',
            )
        return noise.uniform(self.seed, draw, self.samples, self.shape)


def start_noise(program: Program, draws: Draws, init: Floats | None = None) -> Floats:
    """Return x before the first row, float32 [N, *S]: draw 0, or `init` under that noise."""
    start = program.start
    if init is not None:
        alpha, sigma = program.targets[0].astype(np.float32)
        return np.asarray(alpha * init + sigma * draws.normal(0))
    if start.kind == "data":
        raise UsageError(
            "this program starts from data under noise, and there are none", "give them as init"
        )
    if start.kind == "uniform":
        low, high = np.float32(start.low), np.float32(start.high)
        return low + (high - low) * draws.uniform(0)
    return np.float32(start.high) * draws.normal(0)


def drawn_scale(program: Program, draws: Draws, init: Floats | None) -> float | None:
    """Return s if x before the first row is s times draw 0, which a device can draw; or else None.

    Noise between two samples is drawn on the host alone.
    """
    plain = init is None and draws.angles is None and program.start.kind == "normal"
    return program.start.high if plain else None


def row_noise(program: Program, draws: Draws) -> Iterator[Floats | None]:
    """Yield each row's noise, float32 [N, *S], or None if it uses none; drawn in blocks of rows."""
    uses = program.table[:, Column.D] != 0
    block = max(1, _BLOCK // (len(draws.samples) * int(np.prod(draws.shape))))
    for first in range(0, len(program), block):
        wanted = uses[first : first + block]
        which = program.draws[first : first + block][wanted]
        drawn = iter(draws.normal(which) if len(which) else ())
        for used in wanted:
            yield next(drawn) if used else None
