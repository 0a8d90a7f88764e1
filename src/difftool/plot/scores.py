"""Draw the score field of a model of points in the plane."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from difftool.errors import UsageError
from difftool.plot.field import score
from difftool.plot.plane import arrows, dots, fit_window, lattice, require_plane, show
from difftool.plot.style import LEARNED, blank
from difftool.runtime.model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL = 3.0  # inches
_ARROWS = 17  # a side
_SAMPLES = 300
_MOST_PANELS = 6


def draw_scores(
    model: Model, levels: Sequence[int] | None = None, *, label: int | None = None
) -> "Figure":
    """Draw the field at some noise levels, a panel each, over samples of the default program.

    `levels` are schedule indices; 0 has the least noise. By default there are three: the most
    noise, the middle and the least. Each panel's arrows have a scale of their own, so the title
    names the longest. `label` is a class of a model with classes. By default the field is that of
    the null label, and the samples are of all classes.

    Raises:
        UsageError: the samples are not points in the plane, a level is not in the schedule, or the
            model has no such label.
        ArtefactError: the samples are not finite.
        MissingDependencyError: matplotlib is not installed.
    """
    spec = model.spec
    require_plane(spec)
    last = len(spec.schedule) - 1
    chosen = sorted({last, last // 2, 0}, reverse=True) if levels is None else list(levels)
    if not 1 <= len(chosen) <= _MOST_PANELS:
        raise UsageError(f"{len(chosen)} levels are given", f"choose 1 to {_MOST_PANELS}")
    for level in chosen:
        if not 0 <= level <= last:
            raise UsageError(f"level {level} is not in the schedule", f"use 0 to {last}")
    with blank(_PANEL * len(chosen), _PANEL + 0.4) as figure:
        samples = model.sample(n=_SAMPLES, seed=0, labels=label)
        window = fit_window(samples)
        points = lattice(window, _ARROWS)
        panels = figure.subplots(1, len(chosen), squeeze=False, sharey=True)[0]
        for axis, level in zip(panels, chosen, strict=True):
            dots(axis, samples)
            vectors = score(model.backend, spec, level, points, label=label)
            longest = arrows(axis, window, points, vectors, LEARNED)
            sigma = float(spec.schedule.sigma[level])
            show(axis, window, f"sigma {sigma:.3g}\nlongest arrow {longest:.2g}")
        return figure
