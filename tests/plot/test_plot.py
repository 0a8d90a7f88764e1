"""Figures, read back from their axes; equal figures are equal files."""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.quiver import Quiver

import difftool
from difftool import plot
from difftool.diffusion import noise
from difftool.diffusion.columns import Column
from difftool.diffusion.samplers import ddim, dpmpp_2m
from difftool.diffusion.schedules import geometric, linear
from difftool.errors import ArtefactError, MissingDependencyError, UsageError, install_hint
from difftool.plot.plane import fit_window, lattice
from difftool.runtime import Model
from tests.fixtures import IMAGE_SPEC

MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.fixture(scope="module")
def points(points_bundle: Path) -> Model:
    return difftool.load(points_bundle)


@pytest.fixture(scope="module")
def images(tiny_bundle: Path) -> Model:
    return difftool.load(tiny_bundle)


def test_a_schedule_is_drawn_level_by_level() -> None:
    for schedule, scale in (
        (linear(steps=100), "linear"),
        (geometric(levels=10, sigma_min=0.01, sigma_max=1), "log"),
    ):
        left, right = plot.draw_schedule(schedule).axes
        drawn = {line.get_label(): line.get_ydata() for line in left.lines}
        assert (drawn["alpha"] == schedule.alpha).all()
        assert (drawn["sigma"] == schedule.sigma).all()
        log_ratio = np.log(schedule.alpha / schedule.sigma)
        assert right.lines[0].get_ydata() == pytest.approx(log_ratio)
        assert left.get_yscale() == scale


def test_a_program_is_drawn_row_by_row() -> None:
    program = dpmpp_2m(IMAGE_SPEC, steps=6)
    left, right = plot.draw_program(program).axes
    levels = {line.get_label(): line.get_ydata() for line in left.lines}
    assert (levels["alpha"] == program.targets[:, 0]).all()
    assert (levels["sigma"][:-1] == program.targets[:-1, 1]).all()
    assert np.isnan(levels["sigma"][-1])  # the clean end has no place on a logarithmic axis

    lines = {line.get_label(): line for line in right.lines}
    assert list(lines) == ["a", "b", "c0"]  # it adds no noise and uses no raw network
    older = program.table[:, Column.HISTORY]
    assert (older[older != 0] < 0).all()
    assert lines["c0"].get_linestyle() == "--"
    assert lines["a"].get_linestyle() == "-"
    drawn = lines["c0"].get_ydata()
    assert (drawn[older != 0] == -older[older != 0]).all()
    assert np.isnan(drawn[older == 0]).all()


def test_scores_are_those_of_the_lattice(points: Model) -> None:
    figure = plot.draw_scores(points, [4, 0])
    samples = points.sample(n=300, seed=0)
    at = lattice(fit_window(samples), 17)
    for axis, level in zip(figure.axes, (4, 0), strict=True):
        (quiver,) = (found for found in axis.collections if isinstance(found, Quiver))
        expected = plot.score(points.backend, points.spec, level, at)
        assert np.stack([quiver.X, quiver.Y], axis=1) == pytest.approx(at)
        assert np.stack([quiver.U, quiver.V], axis=1) == pytest.approx(expected)
        assert f"sigma {points.spec.schedule.sigma[level]:.3g}\n" in axis.get_title()
        assert axis.get_aspect() == 1


def test_scores_show_most_middle_and_least_noise(points: Model) -> None:
    titles = [axis.get_title().split("\n")[0] for axis in plot.draw_scores(points).axes]
    assert titles == ["sigma 5", "sigma 0.707", "sigma 0.1"]


@pytest.mark.parametrize("levels", [[5], [-1], [], [0] * 7])
def test_scores_of_levels_that_are_not_there(points: Model, levels: list[int]) -> None:
    with pytest.raises(UsageError):
        plot.draw_scores(points, levels)


def test_samples_that_are_not_finite_have_no_window() -> None:
    with pytest.raises(ArtefactError, match="not finite"):
        fit_window(np.array([[0.0, 1.0], [np.nan, 0.0]]))


def test_a_lattice_fills_its_window_evenly() -> None:
    window = fit_window(np.array([[0.0, 0.0], [2.0, 1.0]]))
    assert (window.x, window.y) == (1.0, 0.5)
    x, y = lattice(window, 4).T
    expected = window.x + window.half * np.array([-0.75, -0.25, 0.25, 0.75])
    assert np.unique(x) == pytest.approx(expected)
    assert y.reshape(4, 4)[:, 0] == pytest.approx(expected - 0.5)


def test_paths_go_from_the_start_to_the_samples(points: Model) -> None:
    figure = plot.draw_trajectory(points, n=3, seed=2)
    lines, *ends = figure.axes[0].collections
    first, last = (np.asarray(end.get_offsets()) for end in ends)  # hollow, and filled
    assert isinstance(lines, LineCollection)
    rows = len(points.default_program())
    segments = np.array(lines.get_segments()).reshape(rows, 3, 2, 2)
    assert (segments[1:, :, 0] == segments[:-1, :, 1]).all()  # each goes on from the last one's end
    assert (segments[0, :, 0] == first).all()
    assert (segments[-1, :, 1] == last).all()
    assert last == pytest.approx(points.sample(n=3, seed=2), rel=1e-5)
    # N(0, 5^2), the noisiest level's normal: the fixture names no other start
    expected = 5 * noise.normal(2, 0, np.arange(3), (2,))
    assert first == pytest.approx(expected)


@pytest.mark.parametrize(("steps", "columns"), [(20, 10), (4, 4)])
def test_a_strip_shows_denoised_images_and_samples(images: Model, steps: int, columns: int) -> None:
    program = ddim(images.spec, steps=steps)
    (axis,) = plot.draw_trajectory(images, program, n=3, seed=1).axes
    sheet = np.asarray(axis.images[0].get_array())
    assert sheet.shape == (3 * 10 - 2, (columns + 1) * 10 - 2)
    states = list(images.stream(program, n=3, seed=1))
    assert len(states) == steps
    labels = [label.get_text() for label in axis.get_xticklabels()]
    assert labels[0].startswith("row 1\n")
    assert labels[-2].startswith(f"row {steps}\n")
    expected = {columns: difftool.to_uint8(images.sample(program, n=3, seed=1), images.spec)}
    for state in images.stream(program, n=3, seed=1):
        if state.step in (1, steps):
            column = 0 if state.step == 1 else columns - 1
            expected[column] = difftool.to_uint8(state.denoised, images.spec)
    for column, pixels in expected.items():
        for row in range(3):
            tile = sheet[row * 10 : row * 10 + 8, column * 10 : column * 10 + 8]
            assert (tile == pixels[row, ..., 0]).all()


@pytest.mark.parametrize("format", plot.FORMATS)
def test_equal_figures_are_equal_files_whatever_the_settings(format: str) -> None:
    first = plot.encode(plot.draw_schedule(linear(steps=20)), format)
    assert first.startswith(MAGIC[format])
    assert b"Date" not in first
    assert b"dc:date" not in first
    with matplotlib.rc_context({"font.size": 30, "savefig.dpi": 10, "svg.hashsalt": None}):
        before = dict(matplotlib.rcParams)
        assert plot.encode(plot.draw_schedule(linear(steps=20)), format) == first
        assert dict(matplotlib.rcParams) == before


def test_a_missing_matplotlib_is_named(images: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(Model, "stream", lambda *_, **__: pytest.fail("drew samples in vain"))
    with pytest.raises(MissingDependencyError) as caught:
        plot.draw_trajectory(images)
    assert caught.value.hint == install_hint("plot")
