"""Draw a program's coefficients and noise levels over its rows."""

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.plot.style import COLOURS, blank, grid, marks, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_UPDATE = (Column.A, Column.B, Column.G, Column.D)


def draw_program(program: Program) -> "Figure":
    """Draw alpha and sigma of x before each row and after the last, and the coefficients in use.

    Both are logarithmic. The coefficients a, b, g, d and c[k] have their absolute values; a line is
    dashed if most of its values are negative.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    mark = marks(len(program))
    rows = np.arange(len(program) + 1)
    with blank(8.0, 3.5) as figure:
        left, right = figure.subplots(1, 2)
        figure.suptitle(titled(program.name), fontsize=9)
        for index, name in enumerate(("alpha", "sigma")):
            values = _visible(program.targets[:, index])
            left.plot(rows, values, label=name, color=COLOURS[index], **mark)
        left.set(title="noise level of x", xlabel="rows done", yscale="log")
        for (name, values), colour in zip(_used(program).items(), cycle(COLOURS), strict=False):
            line = "--" if np.median(values[values != 0]) < 0 else "-"
            right.plot(rows[1:], _visible(values), line, label=name, color=colour, **mark)
        right.set(title="coefficients, absolute", xlabel="row", yscale="log")
        grid(left, right)
        for axis in (left, right):
            axis.legend()
        return figure


def _used(program: Program) -> dict[str, Array]:
    """Return the columns of the update that are not zero, by name."""
    named = {column.name.lower(): program.table[:, column] for column in _UPDATE}
    named |= {f"c{k}": program.table[:, Column.HISTORY + k] for k in range(program.history)}
    return {name: values for name, values in named.items() if values.any()}


def _visible(values: Array) -> Array:
    """Return absolute values, with NaN for 0, which has no place on a logarithmic axis."""
    return np.where(values == 0, np.nan, np.abs(values))
