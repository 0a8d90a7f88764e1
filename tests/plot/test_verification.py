"""The picture of a verification: every row's error at its noise level, and the bound."""

from itertools import pairwise

import numpy as np

from difftool.diffusion.samplers import ddim
from difftool.plot import draw_verification, encode
from tests.fixtures import IMAGE_SPEC

PROGRAM = ddim(IMAGE_SPEC, steps=10)
LARGEST = np.geomspace(1e-6, 1e-4, 10)


def lines(largest: np.ndarray, rms: np.ndarray) -> dict[str, np.ndarray]:
    figure = draw_verification(PROGRAM, largest, rms, 3e-4, "one against another")
    encode(figure, "png")
    (axis,) = figure.axes
    assert axis.get_title() == "one against another"
    return {str(line.get_label()): line.get_xydata() for line in axis.lines}


def test_errors_stand_at_their_noise_level() -> None:
    drawn = lines(LARGEST, LARGEST / 10)
    alpha, sigma = PROGRAM.targets[:-1].T
    assert np.allclose(drawn["largest"], np.stack([sigma / alpha, LARGEST], axis=1))
    assert np.allclose(drawn["RMS"][:, 1], LARGEST / 10)
    assert np.allclose(drawn["bound"][:, 1], 3e-4)


def test_a_run_leads_from_left_to_right() -> None:
    figure = draw_verification(PROGRAM, LARGEST, LARGEST, 3e-4, "")
    (axis,) = figure.axes
    level = PROGRAM.targets[:-1, 1] / PROGRAM.targets[:-1, 0]
    places = axis.transData.transform(np.stack([level, LARGEST], axis=1))[:, 0]
    assert all(one < other for one, other in pairwise(places))


def test_rows_without_a_place_on_the_axis() -> None:
    """Zeros have no logarithm; what is not finite is shown as a line over the whole height."""
    largest = LARGEST.copy()
    largest[2], largest[6] = 0, np.nan
    drawn = lines(largest, largest)
    assert len(drawn["largest"]) == 8
    bad = [xy for name, xy in drawn.items() if name.startswith("_child")]
    assert len(bad) == 1
    assert np.allclose(bad[0][:, 0], PROGRAM.targets[6, 1] / PROGRAM.targets[6, 0])


def test_equal_runs_can_be_drawn() -> None:
    assert len(lines(np.zeros(10), np.zeros(10))["largest"]) == 0
