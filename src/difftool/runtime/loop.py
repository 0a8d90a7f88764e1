"""The sampling loop: start noise, then row after row, on any backend."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion import noise
from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.runtime.backends import Batch

Floats = NDArray[np.float32]

_BLOCK = (
    1 << 16
)  # noise numbers drawn at once: numpy's overhead is shared, the cache still holds them


def run(
    batch: Batch, program: Program, seed: int, samples: NDArray[np.int64], shape: tuple[int, ...]
) -> Iterator[int]:
    """Run a batch of the samples with these indices [N] through a program; yields rows done.

    `batch.x` and `batch.denoised` are up to date at every yield.
    """
    batch.start(start_noise(program, seed, samples, shape))
    for row, drawn in enumerate(row_noise(program, seed, samples, shape)):
        batch.step(drawn)
        yield row + 1


def start_noise(
    program: Program, seed: int, samples: NDArray[np.int64], shape: tuple[int, ...]
) -> Floats:
    """x before the first row, float32 [N, *S]: draw 0 of the seed."""
    start = program.start
    if start.kind == "uniform":
        low, high = np.float32(start.low), np.float32(start.high)
        return low + (high - low) * noise.uniform(seed, 0, samples, shape)
    return np.float32(start.high) * noise.normal(seed, 0, samples, shape)


def row_noise(
    program: Program, seed: int, samples: NDArray[np.int64], shape: tuple[int, ...]
) -> Iterator[Floats | None]:
    """Each row's noise, float32 [N, *S], or None where it uses none; drawn in blocks of rows."""
    uses = program.table[:, Column.D] != 0
    block = max(1, _BLOCK // (len(samples) * int(np.prod(shape))))
    for first in range(0, len(program), block):
        wanted = uses[first : first + block]
        drawn = noise.normal(seed, program.draws[first : first + block][wanted], samples, shape)
        remaining = iter(drawn)
        for used in wanted:
            yield next(remaining) if used else None
