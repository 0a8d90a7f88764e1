"""Who runs next, among requests with priorities and deadlines."""

from difftool.runtime.request import Request
from difftool.runtime.scheduling.turns import ROWS
from tests.runtime.scheduling.fake import LONG, NOISY, SHORT, Clock, finish, scheduler
from tests.runtime.scheduling.test_scheduler import check, submit


def test_priority_and_deadline_go_before_attained_service() -> None:
    clock = Clock()
    running, slots = scheduler(most=1, slots=3, clock=clock)
    plain = submit(running, SHORT)
    due = running.submit(Request(SHORT, n=1, seed=1), SHORT, deadline=1000.0)
    clock.now += 500
    urgent = running.submit(Request(SHORT, n=1, seed=2), SHORT, priority=1)
    finish(running)
    assert slots.steps == [[s] for s in (0, 0, 0, 1, 1, 1, 2, 2, 2)]
    for seed, ticket in enumerate((plain, due, urgent)):
        check(ticket, SHORT, seed=seed)


def test_a_deadline_that_is_far_away_makes_nobody_wait() -> None:
    """As a server gives one to each request."""
    running, slots = scheduler(most=1, slots=2)
    asked = [(LONG, 0), (NOISY, 1)]
    tickets = [
        running.submit(Request(program, n=1, seed=seed), program, deadline=600.0 + seed)
        for program, seed in asked
    ]
    while not tickets[1].done():
        running.turn()
    assert [1] in slots.steps[:2]
    assert slots.steps.count([0]) <= 1 + ROWS
    finish(running)
    for ticket, (program, seed) in zip(tickets, asked, strict=True):
        check(ticket, program, seed=seed)
