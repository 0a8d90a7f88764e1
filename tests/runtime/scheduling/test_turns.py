"""Samples that do not fit into one batch take turns of several rows."""

import gc
import weakref

import pytest

from difftool.runtime.scheduling.turns import ROWS
from tests.runtime.scheduling.fake import LONG, SHORT, finish, scheduler
from tests.runtime.scheduling.test_scheduler import check, submit


def test_those_that_have_begun_take_turns_of_several_rows() -> None:
    running, slots = scheduler(most=1, slots=2)
    tickets = [submit(running, LONG, seed=seed) for seed in range(2)]
    finish(running)
    assert slots.steps[:2] == [[0], [1]], "each begins as soon as it can"
    turns = slots.steps[1 : 1 + 4 * ROWS]
    assert turns == [[1]] * ROWS + [[0]] * ROWS + [[1]] * ROWS + [[0]] * ROWS
    for seed, ticket in enumerate(tickets):
        check(ticket, LONG, seed=seed)


def test_whoever_is_new_ends_a_turn() -> None:
    running, slots = scheduler(most=1, slots=3)
    tickets = [submit(running, LONG, seed=seed) for seed in range(2)]
    for _ in range(3):
        running.turn()
    assert slots.steps == [[0], [1], [1]], "in the middle of a turn"
    new = submit(running, SHORT, seed=2)
    running.turn()
    assert slots.steps[-1] == [2]
    finish(running)
    for seed, ticket in enumerate(tickets):
        check(ticket, LONG, seed=seed)
    check(new, SHORT, seed=2)


@pytest.mark.parametrize("ageing", [1, 2, 9])
def test_a_wait_is_counted_in_rows(ageing: int) -> None:
    """It ends with the first turn after `ageing` rows, however little the others have attained."""
    running, slots = scheduler(most=1, slots=6, ageing=ageing)
    old = submit(running, LONG, n=1, seed=0)
    for _ in range(len(LONG) - 1):
        running.turn()
    for seed in range(1, 6):
        submit(running, LONG, seed=seed)
    before = len(slots.steps)
    while not old.done():
        running.turn()
    assert len(slots.steps) - before <= max(ageing, 5) + ROWS
    check(old, LONG, seed=0)
    finish(running)


def test_a_request_that_has_ended_is_not_kept() -> None:
    running, _ = scheduler(most=1, slots=2)
    tickets = [weakref.ref(submit(running, SHORT, seed=seed)) for seed in range(2)]
    finish(running)
    gc.collect()
    assert [ticket() for ticket in tickets] == [None, None]
