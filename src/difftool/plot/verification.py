"""Draw the distance of one backend from another at every row of a program."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.program import Program
from difftool.plot.style import COLOURS, INK, LEARNED, blank, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_MOST_MARKS = 300  # more large marks would merge to a band


def draw_verification(
    program: Program, largest: Array, rms: Array, tolerance: float, title: str
) -> "Figure":
    """Draw each row's largest and root mean square error over the noise level at its start.

    `largest` and `rms` are float64 [R]. Both axes are logarithmic, and a run goes from left to
    right. An error of 0 has no mark, and one that is not finite has a line from top to bottom.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    alpha, sigma = program.targets[:-1].T
    with np.errstate(divide="ignore"):
        level = sigma / alpha
    size = 4 if len(program) <= _MOST_MARKS else 1.5
    with blank(7.0, 3.6) as figure:
        axis = figure.subplots()
        axis.set(xscale="log", yscale="log", xlabel="noise level of x, sigma / alpha")
        axis.set_ylabel("error of one row / largest |x|")
        axis.set_title(titled(title), fontsize=9)
        axis.axhline(tolerance, color=INK, linewidth=0.8, linestyle="--", label="bound")
        for label, errors, colour in (("largest", largest, LEARNED), ("RMS", rms, COLOURS[0])):
            seen = np.isfinite(level) & np.isfinite(errors) & (errors > 0)
            axis.plot(level[seen], errors[seen], "o", label=label, color=colour, markersize=size)
        for bad in level[np.isfinite(level) & ~np.isfinite(largest)]:
            axis.axvline(bad, color=LEARNED, linewidth=0.6)
        axis.invert_xaxis()
        axis.grid(True)
        figure.legend(loc="outside lower center", ncols=3)
        return figure
