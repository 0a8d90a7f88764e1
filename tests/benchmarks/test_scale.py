"""The benchmark of bulk sampling: its simulation meets what can be worked out by hand."""

import pytest
from scale import Costs, scaling, simulate

COSTS = Costs(sample=0.01, task=0.001, byte=1e-8, start=2.0, bytes_of_sample=1000)
DRIVER = 0.001 + 100 * 1000 * 1e-8  # seconds for a shard of 100


def test_one_worker() -> None:
    seconds, waiting = simulate(COSTS, 1000, 100, workers=1)
    assert seconds == pytest.approx(2 + 1000 * 0.01 + DRIVER)
    assert waiting == pytest.approx(100 * 1000)


def test_a_worker_for_each_shard() -> None:
    seconds, waiting = simulate(COSTS, 1000, 100, workers=64)
    assert seconds == pytest.approx(2 + 100 * 0.01 + 10 * DRIVER)
    assert waiting == pytest.approx(1000 * 1000)


def test_a_last_shard_that_is_smaller() -> None:
    seconds, _ = simulate(COSTS, 150, 100, workers=2)
    assert seconds == pytest.approx(2 + 100 * 0.01 + DRIVER)


def test_more_workers_are_a_smaller_part_of_perfect() -> None:
    figures = [figure for figure in scaling(COSTS, "all", 50_000, 100) if "perfect" in figure.name]
    parts = [figure.median for figure in figures]
    assert parts == sorted(parts, reverse=True)
    assert parts[0] == pytest.approx(1, abs=0.01)
