"""The sampling loop: start, then row after row, on any backend."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.diffusion import noise
from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.errors import UsageError
from difftool.runtime.backends import Batch, DrawsNoise

Floats = NDArray[np.float32]
Revision = Callable[[Floats], Floats]  # D [N, *S] -> the D [N, *S] to go on with

_BLOCK = (
    1 << 16
)  # noise numbers drawn at once: numpy's overhead is shared, the cache still holds them


@dataclass(frozen=True)
class Draws:
    """The noise of samples of a seed, by their indices int64 [N].

    With `angles` [N] a sample's noise lies between those of two samples: cos(angle) times the
    noise of `samples[:, 0]` and sin(angle) times that of `samples[:, 1]`, again a normal one.
    """

    seed: int
    samples: NDArray[np.int64]
    shape: tuple[int, ...]
    angles: NDArray[np.float64] | None = None

    @property
    def count(self) -> int:
        """N."""
        return len(self.samples)

    def normal(self, draws: ArrayLike) -> Floats:
        """Standard normal float32 [*D, N, *S] for draws [*D]."""
        if self.angles is None:
            return noise.normal(self.seed, draws, self.samples, self.shape)
        ends = (noise.normal(self.seed, draws, end, self.shape) for end in self.samples.T)
        ones = (1,) * len(self.shape)
        weights = (turn(self.angles).reshape(-1, *ones) for turn in (np.cos, np.sin))
        first, second = (w.astype(np.float32) * end for w, end in zip(weights, ends, strict=True))
        return np.asarray(first + second)

    def uniform(self, draw: int) -> Floats:
        """Uniform float32 [N, *S]; UsageError between samples, where it would not be uniform."""
        if self.angles is not None:
            raise UsageError(
                "a uniform start has nothing between two samples",
                'use a sampler that starts from a normal, or its argument start="normal(1.0)"',
            )
        return noise.uniform(self.seed, draw, self.samples, self.shape)


def run(
    batch: Batch,
    program: Program,
    draws: Draws,
    *,
    init: Floats | None = None,
    revision: Revision | None = None,
    every: int = 1,
) -> Iterator[int]:
    """Run a batch through a program; yields rows done, after `every` so many and after the last.

    `init` [N, *S] are clean samples to start from, under the first row's noise. `revision`
    is applied to D after every row. `batch.x` and `batch.denoised` are up to date at every yield.
    """
    batch.start(start_noise(program, draws, init))
    rows = len(program)
    if revision is None and draws.angles is None and isinstance(batch, DrawsNoise):
        batch.draw(draws)
        for done in range(0, rows, every):
            count = min(every, rows - done)
            batch.advance(count)
            yield done + count
        return
    for row, drawn in enumerate(row_noise(program, draws)):
        batch.step(drawn)
        if revision is not None:
            batch.revise(revision(batch.denoised))
        if (row + 1) % every == 0 or row + 1 == rows:
            yield row + 1


def start_noise(program: Program, draws: Draws, init: Floats | None = None) -> Floats:
    """x before the first row, float32 [N, *S]: draw 0 of the seed, or `init` under its noise."""
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


def row_noise(program: Program, draws: Draws) -> Iterator[Floats | None]:
    """Each row's noise, float32 [N, *S], or None where it uses none; drawn in blocks of rows."""
    uses = program.table[:, Column.D] != 0
    block = max(1, _BLOCK // (draws.count * int(np.prod(draws.shape))))
    for first in range(0, len(program), block):
        wanted = uses[first : first + block]
        drawn = draws.normal(program.draws[first : first + block][wanted])
        remaining = iter(drawn)
        for used in wanted:
            yield next(remaining) if used else None
