"""Records of trainings, read back from their axes."""

import pytest

from difftool import plot
from difftool.errors import UsageError

ONE = [
    {"step": 1, "loss": 4.0, "lr": 0.1},
    {"step": 2, "loss": 2.0, "lr": 0.2, "validation_loss": 3.0},
    {"step": 4, "loss": 1.0, "lr": 0.3, "validation_loss": 2.5},
]
TWO = [{"step": 2, "loss": 3.0, "lr": 0.5}]


def test_runs_are_drawn_beside_each_other() -> None:
    figure = plot.draw_training({"one": ONE, "two": TWO})
    loss, held, rate = figure.axes
    assert [axis.get_title() for axis in figure.axes] == [
        "loss",
        "validation loss",
        "learning rate",
    ]
    lines = {line.get_label(): line for line in loss.lines}
    assert [*lines["one"].get_xdata()] == [1, 2, 4]
    assert [*lines["one"].get_ydata()] == [4.0, 2.0, 1.0]
    assert [*lines["two"].get_ydata()] == [3.0]
    assert lines["one"].get_color() != lines["two"].get_color()
    assert [*held.lines[0].get_xdata()] == [2, 4]
    assert [*rate.lines[1].get_ydata()] == [0.5]
    assert (loss.get_yscale(), rate.get_yscale()) == ("log", "linear")
    legend = loss.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]


def test_one_run_without_validation_or_with_losses_below_zero() -> None:
    """Score matching has such losses, which a logarithm cannot show."""
    figure = plot.draw_training({"one": [{"step": 1, "loss": -1.0, "lr": 0.1}]})
    assert [axis.get_title() for axis in figure.axes] == ["loss", "learning rate"]
    assert figure.axes[0].get_yscale() == "linear"
    assert figure.axes[0].get_legend() is None


def test_nothing_to_draw_is_refused() -> None:
    for runs in ({}, {"one": ONE, "two": [{"step": 1}]}):
        with pytest.raises(UsageError, match="no loss to draw"):
            plot.draw_training(runs)
