"""Long samples leave slots and room in the table free, so that a brief request waits for no one."""

import pytest

from difftool.errors import ResourceError, UsageError
from difftool.runtime.scheduling.settings import SchedulerSettings
from tests.runtime.scheduling.fake import LONG, NOISY, SHORT, finish, scheduler
from tests.runtime.scheduling.test_scheduler import check, submit

BRIEF = len(NOISY)


@pytest.mark.parametrize("waiting", [0, 5])
def test_a_brief_request_joins_at_once_however_many_long_ones_there_are(waiting: int) -> None:
    running, slots = scheduler(most=2, slots=6, brief=BRIEF)
    long = [submit(running, LONG, seed=seed) for seed in range(4 + waiting)]
    running.turn()
    assert running.occupied == 4
    brief = submit(running, NOISY, seed=99)
    running.turn()
    assert running.occupied == 5
    assert slots.steps == [[0, 1], [2, 3]], "those have attained as little, and came before"
    running.turn()
    assert 4 in slots.steps[-1]
    finish(running)
    check(brief, NOISY, seed=99)
    for seed, ticket in enumerate(long):
        check(ticket, LONG, seed=seed)


def test_brief_requests_wait_for_brief_ones_alone() -> None:
    """The last of many brief ones is done while all long ones are on their way."""
    running, _ = scheduler(most=2, slots=6, brief=BRIEF, ageing=1000)
    long = [submit(running, LONG, seed=seed) for seed in range(6)]
    running.turn()
    brief = [submit(running, SHORT, seed=seed) for seed in range(12)]
    steps = 0
    while not all(ticket.done() for ticket in brief):
        running.turn()
        steps += 1
    assert steps <= len(brief) * len(SHORT)
    assert not any(ticket.done() for ticket in long)
    finish(running)
    for seed, ticket in enumerate(brief):
        check(ticket, SHORT, seed=seed)


def test_brief_requests_without_end_do_not_keep_a_long_one_out() -> None:
    running, _ = scheduler(most=2, slots=4, brief=BRIEF)
    brief = [submit(running, SHORT, seed=seed) for seed in range(4)]
    long = submit(running, LONG)
    for seed in range(200):
        running.turn()
        brief.append(submit(running, SHORT, seed=seed))
        if long.done():
            break
        if running.load.waiting > 10:
            brief.pop().cancel()
    check(long, LONG)


def test_room_in_the_table_is_left_for_brief_programs() -> None:
    """Each label has rows of its own. Who waits for room is overtaken by brief ones alone."""
    running, slots = scheduler(most=2, slots=6, brief=BRIEF)
    running.pool.rows = 32  # of which 28 are for all: two long programs fit
    long = [submit(running, LONG, labels=label) for label in range(3)]
    other = submit(running, LONG, seed=1)
    brief = submit(running, SHORT, seed=2)
    running.turn()
    assert running.occupied == 3
    assert [len(program) for program, _ in slots.placed] == [12, 12, 3]
    assert brief.began is not None
    assert other.began is None, "there are rows for it, but it comes after one that waits"
    finish(running)
    check(brief, SHORT, seed=2)
    check(other, LONG, seed=1)
    assert all(ticket.done() for ticket in long)
    running.pool.rows = 12
    with pytest.raises(ResourceError, match=r"has 12 rows and .*; 11 and"):
        submit(running, LONG)


@pytest.mark.parametrize(("settings", "most"), [({"slots": 2}, 2), ({"slots": 4, "brief": 0}, 4)])
def test_no_slot_is_kept_if_there_is_one_batch_or_nothing_is_brief(
    settings: dict[str, int], most: int
) -> None:
    running, _ = scheduler(most=2, **{"brief": BRIEF, **settings})
    for seed in range(5):
        submit(running, LONG, seed=seed)
    running.turn()
    assert running.occupied == most
    with pytest.raises(UsageError, match="a brief program of -1 rows"):
        SchedulerSettings(brief=-1)
