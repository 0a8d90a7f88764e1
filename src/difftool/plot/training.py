"""Draw the records of trainings over their steps."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Final

from difftool.errors import UsageError
from difftool.plot.style import COLOURS, blank, grid, marks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Records = Sequence[Mapping[str, float]]
_PANELS: Final = {
    "loss": "loss",
    "validation_loss": "validation loss",
    "lr": "learning rate",
}


def draw_training(runs: Mapping[str, Records]) -> "Figure":
    """Draw loss, validation loss and learning rate of runs, by name, over their steps.

    Records are those of `difftool.train.read_metrics`. The validation loss is left out if no run
    has one. Losses are logarithmic if all of them are positive.

    Raises:
        UsageError: there is no run, or one has no loss.
        MissingDependencyError: matplotlib is not installed.
    """
    if not runs or not all(any("loss" in each for each in records) for records in runs.values()):
        raise UsageError("there is no loss to draw", "give runs that have records")
    drawn = [
        name
        for name in _PANELS
        if any(name in each for records in runs.values() for each in records)
    ]
    with blank(4.0 * len(drawn), 3.3) as figure:
        axes = figure.subplots(1, len(drawn), squeeze=False)[0]
        for axis, name in zip(axes, drawn, strict=True):
            lowest = 1.0
            for (run, records), colour in zip(runs.items(), cycle(COLOURS), strict=False):
                found = [each for each in records if name in each]
                values = [each[name] for each in found]
                steps = [each["step"] for each in found]
                axis.plot(steps, values, label=run, color=colour, **marks(len(values)))
                lowest = min([lowest, *values])
            logarithmic = name != "lr" and lowest > 0
            axis.set(title=_PANELS[name], xlabel="step", yscale="log" if logarithmic else "linear")
        grid(*axes)
        if len(runs) > 1:
            axes[0].legend()
        return figure
