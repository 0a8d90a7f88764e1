"""A ratio is held to what was committed, with some tolerance."""

import json
from pathlib import Path

import pytest
from common.report import Figure
from gate import TOLERANCE, committed, held


@pytest.mark.parametrize(
    ("before", "lower", "verdict"),
    [
        (1.0, True, "pass"),
        (0.9, True, "pass"),
        (0.8, True, "FAIL"),
        (1.1, False, "pass"),
        (1.2, False, "FAIL"),
        (None, True, ""),
    ],
)
def test_a_ratio_may_be_a_little_worse(before: float | None, lower: bool, verdict: str) -> None:
    assert TOLERANCE == 1.15
    other = Figure("other", [99.0])
    figure = held([other, Figure("x", [1.0])], "x", before, lower=lower)
    assert (figure.name, figure.values, figure.verdict) == ("x", [1.0], verdict)


def test_what_was_committed_is_read_by_name(tmp_path: Path) -> None:
    assert committed("toy", "x", tmp_path) is None
    (tmp_path / "toy.json").write_text(json.dumps({"figures": [{"name": "x", "median": 2.5}]}))
    assert committed("toy", "x", tmp_path) == 2.5
    assert committed("toy", "y", tmp_path) is None
