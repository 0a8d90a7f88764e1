"""The style that all pictures share, and a picture's bytes."""

import contextlib
import io
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from difftool.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS: Final = ("png", "svg", "pdf")
"""The formats of plots, as endings of file names."""

INK: Final = "#30343b"  # axes, text, and what is true
DATA: Final = "#2a7ab0"  # samples and densities
LEARNED: Final = "#c8443a"  # outputs of networks
COLOURS: Final = (DATA, LEARNED, "#4d9a5b", "#c98a1b", "#7b5aa6", "#5f6b78")
RAMP: Final = "viridis"  # time, from early to late

_MOST_MARKS: Final = 60  # on a line
_STYLE: Final[Mapping[str, Any]] = {
    "axes.edgecolor": INK,
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.7,
    "axes.titlesize": 10.5,
    "figure.dpi": 130,
    "font.size": 10,
    "grid.alpha": 0.25,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "savefig.dpi": 130,
    "svg.hashsalt": "difftool",  # without it the names inside an SVG differ each time
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 9,
    "ytick.color": INK,
    "ytick.labelsize": 9,
}
# Left out, since these hold the time of writing or the versions of libraries.
_METADATA: Final[Mapping[str, dict[str, None]]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw in this style, and leave the process's own settings as they were.

    MissingDependencyError if matplotlib is not installed.
    """
    try:
        from matplotlib import style
    except ImportError as error:
        raise MissingDependencyError.extra("matplotlib", "plot") from error
    with style.context(["default", dict(_STYLE)]):
        yield


@contextlib.contextmanager
def blank(width: float, height: float) -> Iterator["Figure"]:
    """Yield an empty figure, its size in inches, in this style; see `styled`."""
    with styled():
        from matplotlib.figure import Figure

        yield Figure(figsize=(width, height), layout="constrained")


def grid(*axes: "Axes") -> None:
    """Draw grid lines, and whole numbers on the x axis."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.grid(True)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def marks(points: int) -> dict[str, Any]:
    """Return the arguments of a line of so many points, with a mark on each if these are few."""
    return {"marker": "."} if points < _MOST_MARKS else {}


def titled(text: str) -> str:
    """Break a long title, such as a program's name, into lines."""
    return textwrap.fill(text, 80)


def encode(figure: "Figure", format: str) -> bytes:
    """Return the figure as one of `FORMATS`; equal figures give equal bytes."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"metadata": dict(_METADATA[format])}
    if format == "png":
        options["pil_kwargs"] = {"optimize": True}
    with styled():  # settings such as savefig.dpi apply only now
        figure.savefig(buffer, format=format, **options)
    return buffer.getvalue()
