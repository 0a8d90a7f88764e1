"""The parts of pictures of the plane: windows, arrows, points and paths on an axis."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, UsageError
from difftool.plot.style import DATA, INK, RAMP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

Array = NDArray[np.floating]

_MARGIN = 0.08  # free space at each edge, as a share of a window's side


class Window(NamedTuple):
    """A square of the plane: its centre and half its side."""

    x: float
    y: float
    half: float


def require_plane(spec: ModelSpec) -> None:
    """Raise UsageError if a model's samples are not points in the plane."""
    if spec.shape != (2,):
        raise UsageError(
            f"samples of shape {spec.shape} are not points in the plane",
            "use a model of 2-D points, such as the preset toy",
        )


def fit_window(points: Array) -> Window:
    """Return the square around points [N, 2]; ArtefactError if one of them is not finite."""
    if not np.isfinite(points).all():
        raise ArtefactError("the model's samples are not finite", "train it longer, or verify it")
    low, high = points.min(axis=0), points.max(axis=0)
    x, y = (low + high) / 2
    half = (0.5 + _MARGIN) * float(max(high - low)) or 1.0
    return Window(float(x), float(y), half)


def lattice(window: Window, count: int) -> Array:
    """Return count * count points [count^2, 2], each in the middle of its cell of the window."""
    offsets = window.half * ((2 * np.arange(count) + 1) / count - 1)
    x, y = np.meshgrid(window.x + offsets, window.y + offsets)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def show(axis: "Axes", window: Window, title: str) -> None:
    """Set an axis to the window, with the same scale in both directions."""
    axis.set(
        xlim=(window.x - window.half, window.x + window.half),
        ylim=(window.y - window.half, window.y + window.half),
        aspect="equal",
        title=title,
    )
    axis.locator_params(nbins=6, steps=[1, 2, 5, 10])


def arrows(axis: "Axes", window: Window, points: Array, vectors: Array, colour: str = INK) -> float:
    """Draw vectors [N, 2] at the points of a lattice, the longest two cells long.

    Return the longest vector's length.
    """
    longest = float(np.linalg.norm(vectors, axis=1).max())
    cell = 2 * window.half / np.sqrt(len(points))
    axis.quiver(
        *points.T,
        *vectors.T,
        angles="xy",
        scale_units="xy",
        scale=max(longest, np.finfo(np.float32).tiny) / (2 * cell),
        color=colour,
        width=0.004,
        headwidth=4,
        headlength=5,
        pivot="tail",
        zorder=3,
    )
    return longest


def dots(axis: "Axes", points: Array, colour: str = DATA) -> None:
    """Draw samples [N, 2]."""
    axis.scatter(points[:, 0], points[:, 1], s=4, color=colour, alpha=0.5, linewidths=0, zorder=2)


def paths(axis: "Axes", states: Array) -> "ScalarMappable":
    """Draw states [T, N, 2] as N lines coloured by time, with hollow starts and filled ends.

    Return the lines, for a colour bar of the states' numbers, 0 .. T - 1.
    """
    from matplotlib.collections import LineCollection

    count = states.shape[1]
    segments = np.stack([states[:-1], states[1:]], axis=2)  # [T - 1, N, 2 ends, 2]
    lines = LineCollection(
        list(segments.reshape(-1, 2, 2)), cmap=RAMP, linewidths=0.7, alpha=0.8, zorder=2
    )
    lines.set_array(np.repeat(np.arange(len(segments)), count))
    axis.add_collection(lines)
    ends: dict[str, Any] = {"s": 26, "edgecolors": INK, "linewidths": 0.9, "zorder": 4}
    for state, face in ((states[0], "white"), (states[-1], DATA)):
        axis.scatter(state[:, 0], state[:, 1], facecolors=face, **ends)
    return lines
