"""The benchmark of serving: every request ends, and the figures tell how long it waited."""

import numpy as np
import pytest
from common.machine import ROOT
from serving import MOST, ROWS, Arrival, alone, arrivals, cost, measure, mixed, simulate

import difftool
from difftool import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return difftool.load("ddpm-mnist", threads=1, max_batch=MOST)


def test_the_cost_of_a_lone_request_is_known(model: Model) -> None:
    program = difftool.samplers.ddim(model.spec, steps=10)
    took, slots = simulate(model, [Arrival(5.0, program), Arrival(5.5, program)], "step")
    assert slots.begun == {0: 5.0, 1: 5.0 + cost(1)}
    assert np.allclose(took, [cost(1) + 9 * cost(2), cost(1) - 0.5 + 9 * cost(2) + cost(1)])
    took, slots = simulate(model, [Arrival(5.0, program), Arrival(5.5, program)], "request")
    assert np.allclose(took, [10 * cost(1), 20 * cost(1) - 0.5])


def test_short_requests_do_not_wait_for_long_ones(model: Model) -> None:
    figures = {figure.name: figure for figure in mixed(model, 60)}
    assert figures[f"P95 of {ROWS[0]} rows, step / request"].verdict == "pass"
    mean = np.mean([len(arrival.program) for arrival in arrivals(model, 400, 1.0)])
    assert abs(mean / np.mean(ROWS) - 1) < 0.15


def test_the_clock_of_a_real_network_moves_by_its_steps(model: Model) -> None:
    program = difftool.samplers.ddim(model.spec, steps=3)
    took, slots = simulate(model, [Arrival(5.0, program), Arrival(1e9, program)], "step", real=True)
    assert slots.begun[0] >= 5  # its place and its join have moved the clock
    assert slots.now > slots.begun[1] >= 1e9
    assert min(took) > 0


def test_what_is_measured(model: Model) -> None:
    names = [figure.name for figure in measure(model, 1, 10)]
    assert names[-2:] == ["scheduler / loop", "rate of requests / of static batches"]


def test_the_code_of_before_takes_turns_with_that_of_now() -> None:
    *_, idle, before = alone("ddpm-mnist", 1, 1, 2, ROOT)
    assert (idle.at_most, len(idle.values), len(before.values)) == (1.03, 1, 1)
    *_, before = alone("ddpm-mnist", 1, 1, 2, None)
    assert (before.absent, before.verdict) == ("give --before", "")
