"""Compare what a candidate computes with what PyTorch computes in float32."""

import numpy as np

from difftool import ModelSpec, Program
from difftool.runtime import Batch, Draws

ROWS = 8  # that single steps are taken of

Floats = np.ndarray


class SingleSteps:
    """Steps that the reference takes, from states that a perfect run may be in.

    Spread over the program's noise levels, each from random data under the noise of its row.
    """

    def __init__(self, reference: Batch, spec: ModelSpec, program: Program, size: int) -> None:
        self._spec, self._program = spec, program
        self.draws = Draws(1, np.arange(size), spec.shape)
        rows = np.unique(np.linspace(0, len(program) - 1, ROWS).astype(int)).tolist()
        self._given = [(row, self.state(row), self.draws.normal(row + 1)) for row in rows]
        self._expected = [_step(reference, *given) for given in self._given]

    def error(self, batch: Batch) -> float:
        """Give the largest |difference| of x over the largest |x| after any step; NaN stays."""
        found = (_step(batch, *given) for given in self._given)
        return float(np.max([*map(relative_error, found, self._expected)]))

    def state(self, row: int) -> Floats:
        """Draw random data under the noise of a row, float32 [N, *S]."""
        generator = np.random.default_rng(row)
        low, high = self._spec.data_range or (-1.0, 1.0)
        alpha, sigma = self._program.targets[row]
        shape = (len(self.draws.samples), *self._spec.shape)
        x = alpha * generator.uniform(low, high, shape) + sigma * generator.standard_normal(shape)
        return x.astype(np.float32)


def relative_error(found: Floats, expected: Floats) -> float:
    """Give the largest |difference| of two arrays over the largest |number| of the second."""
    exact = np.asarray(expected, np.float64)
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def _step(batch: Batch, row: int, x: Floats, drawn: Floats) -> Floats:
    batch.start(x, row=row)
    batch.step(drawn)
    return np.array(batch.x)
