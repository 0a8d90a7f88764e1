"""The sampling loop: start, then row after row, on any backend."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.runtime.draws import Draws, drawn_scale, row_noise, start_noise
from difftool.runtime.protocols import Batch, DrawsNoise, Known

Floats = NDArray[np.float32]


def run(
    batch: Batch,
    program: Program,
    draws: Draws,
    *,
    init: Floats | None = None,
    known: Known | None = None,
    edit: Callable[[Floats], Floats] | None = None,
    every: int = 1,
) -> Iterator[int]:
    """Run a batch through a program; yields rows done, after `every` so many and after the last.

    `init` [N, *S] are clean samples to start from, under the first row's noise. D is steered by
    `known`, which the step graph sets by itself, or by `edit`, a function of D [N, *S] that is
    called after every row. `batch.x` and `batch.denoised` are up to date at every yield.
    """
    rows = len(program)
    # Noise between two samples is drawn on the host alone.
    device = batch if draws.angles is None and isinstance(batch, DrawsNoise) else None
    scale = drawn_scale(program, draws, init)
    if device is not None and scale is not None:
        device.begin(scale, draws, known=known)
    else:
        batch.start(start_noise(program, draws, init), known=known)
    if device is not None and edit is None:  # an edit must see every row
        for done in range(0, rows, every):
            count = min(every, rows - done)
            device.advance(count, draws)
            yield done + count
        return
    for row, drawn in enumerate(row_noise(program, draws)):
        batch.step(drawn)
        if edit is not None:
            replace_denoised(batch, program, row, edit(batch.denoised))
        if (row + 1) % every == 0 or row + 1 == rows:
            yield row + 1


def replace_denoised(batch: Batch, program: Program, row: int, denoised: Floats) -> None:
    """Go on as if `row`, the last that was run, had found this D [N, *S].

    A row is linear in D. So a change of D adds b times itself to x and f times itself to the newest
    entry of the history, and no graph has to know of it.
    """
    weights = program.table[row].astype(batch.x.dtype)
    change = denoised - batch.denoised
    history = batch.history.copy()
    history[0] += weights[Column.F] * change
    x = batch.x + weights[Column.B] * change
    batch.start(x, row=row + 1, history=history, denoised=denoised)
