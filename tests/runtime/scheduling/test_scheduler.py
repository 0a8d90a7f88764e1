"""Requests join, leave and fail one by one, and nobody else's samples change."""

from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Literal

import numpy as np
import pytest

from difftool.diffusion.samplers import ddim, predictor_corrector
from difftool.errors import Busy, CheckFailed, DeadlineExceeded, ResourceError, UsageError
from difftool.runtime import edits
from difftool.runtime.request import Request
from difftool.runtime.scheduling.scheduler import Scheduler
from difftool.runtime.scheduling.settings import SchedulerSettings
from difftool.runtime.scheduling.slots import IDLE
from difftool.runtime.scheduling.ticket import Ticket
from difftool.runtime.scheduling.turns import ROWS
from tests.runtime.scheduling.fake import (
    LONG,
    NOISY,
    SHORT,
    SPEC,
    Clock,
    Program,
    expected,
    finish,
    scheduler,
)


def submit(to: Scheduler, program: Program, n: int = 1, seed: int = 0, **more: object) -> Ticket:
    return to.submit(Request(program, n=n, seed=seed, **more), program)  # type: ignore[arg-type]


def check(
    ticket: Ticket, program: Program, n: int = 1, seed: int = 0, labels: Sequence[int] = ()
) -> None:
    of = labels or [None] * n
    wanted = np.stack([expected(program, seed, sample, of[sample]) for sample in range(n)])
    assert ticket.result(0).tobytes() == wanted.tobytes()


def test_a_short_request_joins_at_the_next_step_and_leaves_before_long_ones() -> None:
    running, slots = scheduler(most=2)
    long = [submit(running, LONG, seed=seed) for seed in range(2)]
    running.turn()
    short = submit(running, SHORT, seed=7)
    running.turn()
    assert 2 in slots.steps[1], "the new one has attained least"
    while not short.done():
        running.turn()
    assert slots.steps == [[0, 1], [0, 2], [0, 2], [0, 2]]
    check(short, SHORT, seed=7)
    finish(running)
    for seed, ticket in enumerate(long):
        check(ticket, LONG, seed=seed)
    assert running.counts.ok == running.counts.accepted == 3
    assert running.occupied == running.pool.users == 0


def test_a_request_of_many_samples_takes_no_more_slots_than_a_batch() -> None:
    running, slots = scheduler(most=2, slots=4)
    labels = [i % 3 for i in range(9)]
    many = submit(running, NOISY, n=9, seed=1, labels=labels)
    running.turn()
    assert running.occupied == 2
    one = submit(running, NOISY, seed=2, labels=[3])
    running.turn()
    assert running.occupied == 3
    finish(running)
    check(many, NOISY, n=9, seed=1, labels=labels)
    check(one, NOISY, seed=2, labels=[3])
    # Each label is placed once, whichever sample came first; 3 is no class.
    assert sorted(label for _, label in slots.placed if label is not None) == [0, 1, 2, 3]


def test_a_cancel_frees_the_slot_before_the_next_step() -> None:
    running, slots = scheduler()
    first, second = submit(running, LONG), submit(running, LONG, seed=1)
    running.turn()
    assert first.cancel()
    assert first.done()
    running.turn()
    assert [len(step) for step in slots.steps] == [2, 1]
    with pytest.raises(CancelledError):
        first.result(0)
    finish(running)
    check(second, LONG, seed=1)
    assert (running.counts.ok, running.counts.cancelled) == (1, 1)
    assert not second.cancel(), "it has ended"


def test_a_deadline_ends_a_request_with_an_error_of_its_own() -> None:
    clock = Clock()
    running, _ = scheduler(clock=clock)
    late = running.submit(Request(LONG, n=1), LONG, deadline=5.0)
    early = running.submit(Request(SHORT, n=1), SHORT, deadline=50.0)
    running.turn()
    clock.now += 6
    finish(running)
    with pytest.raises(DeadlineExceeded, match="0 of 1 samples were done"):
        late.result(0)
    check(early, SHORT)
    assert (running.counts.timeout, running.counts.ok) == (1, 1)
    with pytest.raises(UsageError, match="a deadline in 0 seconds"):
        running.submit(Request(LONG, n=1), LONG, deadline=0)


def test_a_full_queue_refuses() -> None:
    running, _ = scheduler(most=1, slots=1, queue=2)
    tickets = [submit(running, SHORT, seed=seed) for seed in range(2)]
    with pytest.raises(Busy, match="2 requests are waiting"):
        submit(running, SHORT)
    running.turn()  # now one of them has begun
    tickets.append(submit(running, SHORT, seed=2))
    with pytest.raises(Busy):
        submit(running, SHORT)
    assert tickets[2].cancel()
    running.turn()
    tickets.append(submit(running, SHORT, seed=3))
    finish(running)
    counts = running.counts
    assert (counts.accepted, counts.refused, counts.ok, counts.cancelled) == (4, 2, 3, 1)


def test_a_priority_that_is_no_integer_harms_nobody() -> None:
    running, _ = scheduler()
    good = submit(running, SHORT)
    for priority in ("high", None, 0.5):
        with pytest.raises(UsageError, match="priority"):
            running.submit(Request(SHORT, n=1), SHORT, priority=priority)  # type: ignore[arg-type]
    finish(running)
    check(good, SHORT)


@pytest.mark.parametrize("during", ["place", "join", "advance", "read"])
def test_a_cancel_at_any_point_frees_the_slots(
    during: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, slots = scheduler(most=2)
    good, bad = submit(running, LONG, seed=1), submit(running, NOISY, n=3)
    call = getattr(slots, during)

    def cancelling(*asked: object) -> object:
        bad.cancel()
        return call(*asked)

    monkeypatch.setattr(slots, during, cancelling)
    finish(running)
    check(good, LONG, seed=1)
    assert bad.cancelled()
    assert (running.counts.ok, running.counts.cancelled) == (1, 1)
    assert running.occupied == running.pool.users == 0


def test_a_step_that_raises_ends_the_requests_in_it_and_no_other() -> None:
    running, slots = scheduler(most=1, slots=2)
    lost, kept = submit(running, LONG), submit(running, LONG, seed=1)

    def fail(places: object) -> None:
        if places == [0]:
            raise ValueError("the backend broke")

    running.turn()
    assert slots.steps[-1] == [0]
    slots.before = fail
    for _ in range(2 * ROWS):
        running.turn()
    slots.before = lambda places: None
    finish(running)
    with pytest.raises(ValueError, match="the backend broke"):
        lost.result(0)
    check(kept, LONG, seed=1)
    assert (running.counts.failed, running.counts.ok) == (1, 1)


def test_a_step_that_raises_ends_all_requests_in_it() -> None:
    running, slots = scheduler(most=2)
    tickets = [submit(running, SHORT), submit(running, LONG, n=3, seed=1)]

    def fail(places: object) -> None:
        raise ValueError("the backend broke")

    slots.before = fail
    running.turn()
    assert [str(ticket.exception(0)) for ticket in tickets] == ["the backend broke"] * 2
    assert (running.counts.failed, running.occupied) == (2, 0)


@pytest.mark.parametrize("during", ["advance", "place", "join", "read"])
def test_memory_that_runs_out_is_told_with_a_way_out(
    during: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, slots = scheduler(most=2)
    ticket = submit(running, SHORT, n=2)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(slots, during, fail)
    finish(running)
    with pytest.raises(ResourceError, match="no memory for a batch of 2") as caught:
        ticket.result(0)
    assert "max_batch 1" in caught.value.hint
    assert isinstance(caught.value.__cause__, MemoryError)


def test_samples_that_cannot_be_read_end_their_own_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running, slots = scheduler()
    bad, good = submit(running, SHORT, n=2), submit(running, LONG, seed=1)
    read = slots.read

    def fail(slot: int, what: Literal["x", "denoised"]) -> np.ndarray:
        if slot == 0:
            raise ValueError("the device broke")
        return read(slot, what)

    monkeypatch.setattr(slots, "read", fail)
    finish(running)
    with pytest.raises(ValueError, match="the device broke"):
        bad.result(0)
    check(good, LONG, seed=1)
    assert running.occupied == running.pool.users == 0


def test_a_sample_that_is_not_finite_ends_its_own_request() -> None:
    running, slots = scheduler(most=4)
    bad, good = submit(running, LONG, n=2), submit(running, LONG, n=2, seed=1)
    running.turn()
    slots.standing[1].x[0] = np.nan
    finish(running)
    with pytest.raises(CheckFailed, match="not finite"):
        bad.result(0)
    check(good, LONG, n=2, seed=1)
    assert running.occupied == running.pool.users == 0


def test_rows_that_cannot_be_placed_end_their_request(monkeypatch: pytest.MonkeyPatch) -> None:
    running, slots = scheduler()
    good = submit(running, SHORT)
    place = slots.place

    def fail(program: Program, *more: object) -> None:
        if program is LONG:
            raise ValueError("the conditioner broke")
        place(program, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(slots, "place", fail)
    bad = submit(running, LONG)
    finish(running)
    with pytest.raises(ValueError, match="conditioner broke"):
        bad.result(0)
    check(good, SHORT)
    assert len(running.pool) == 1


def test_a_label_between_the_first_and_the_last_may_need_more_conds() -> None:
    """Guidance runs the null label, too, which the first and the last sample here have anyway."""
    running, _ = scheduler()
    running.pool.conds = len(LONG.conds)
    with pytest.raises(ResourceError, match="24 conds"):
        submit(running, LONG, n=3, labels=[3, 0, 3], guidance_scale=2.0)


def test_who_finds_no_room_in_the_table_waits_for_it() -> None:
    running, _ = scheduler()
    running.pool.rows = len(LONG) + 1
    first = submit(running, LONG)
    second, third = submit(running, NOISY, seed=1), submit(running, LONG, seed=2)
    running.turn()
    assert running.occupied == 1, "the third would fit, but comes after the second"
    finish(running)
    check(first, LONG)
    check(second, NOISY, seed=1)
    check(third, LONG, seed=2)
    with pytest.raises(ResourceError, match="has 20 rows"):
        submit(running, ddim(SPEC, steps=20))


@pytest.mark.parametrize(
    ("batching", "together"),
    [
        ("step", [4, 4, 4, 1, 1]),
        ("request", [3, 3, 3, 1, 1, 1, 1, 1]),
        ("off", [2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_batching(batching: str, together: list[int]) -> None:
    running, slots = scheduler(most=4, batching=batching)
    asked = [(SHORT, 2, 0), (NOISY, 1, 1), (SHORT, 1, 2)]
    tickets = [submit(running, program, n, seed) for program, n, seed in asked]
    finish(running)
    assert [len(step) for step in slots.steps] == together
    for ticket, (program, n, seed) in zip(tickets, asked, strict=True):
        check(ticket, program, n, seed)


def test_a_deterministic_sample_has_its_place_in_the_largest_batch() -> None:
    running, slots = scheduler(most=4)
    submit(running, SHORT, n=3, first_sample=2, deterministic=True)
    plain = submit(running, SHORT, seed=1)
    clash = submit(running, SHORT, n=1, first_sample=6, deterministic=True)
    finish(running)
    # Samples 2, 3, 4 stand at 2, 3, 0; sample 6 waits for place 2; the plain one takes the rest.
    assert slots.places[0] == [2, 3, 0, 1]
    assert slots.places[3] == [IDLE, IDLE, 4, IDLE]
    check(plain, SHORT, seed=1)
    assert clash.done()


def test_what_shares_no_steps_is_refused() -> None:
    running, _ = scheduler()
    coupled = predictor_corrector(SPEC, steps=2, corrector="reference")
    with pytest.raises(UsageError, match="shares its steps' sizes"):
        submit(running, coupled)
    with pytest.raises(UsageError, match="edit in Python"):
        submit(running, SHORT, edit=lambda denoised, positions: denoised)
    with pytest.raises(UsageError, match="has no hook"):
        submit(running, SHORT, on_step=lambda state: None)
    with pytest.raises(UsageError, match="no class 9"):
        submit(running, SHORT, n=2, labels=[0, 9])
    with pytest.raises(UsageError, match="values of shape"):
        submit(running, SHORT, init=np.zeros((3, 3)))
    with pytest.raises(UsageError, match="values for 2 samples"):
        submit(running, SHORT, n=3, edit=edits.inpaint(np.zeros((2, 2)), np.ones((2, 2))))
    assert running.counts.accepted == 0
    with pytest.raises(UsageError, match="unknown batching"):
        SchedulerSettings(batching="all")  # type: ignore[arg-type]


def test_the_watchdog_tells_how_long_a_step_may_take() -> None:
    clock = Clock()
    running, slots = scheduler(clock=clock)
    said: list[bool] = []

    def hang(places: object) -> None:
        clock.now += 60
        said.extend([running.healthy(61), running.healthy(59)])

    submit(running, SHORT)
    slots.before = hang
    running.turn()
    assert said == [True, False]
    assert running.healthy(0)


def test_previews_come_after_every_so_many_rows_and_a_slow_reader_loses_the_oldest() -> None:
    running, _ = scheduler()
    ticket = submit(running, NOISY, n=2, every=2, first_sample=3)
    readers = ticket.stream("x"), ticket.stream(most=3)
    finish(running)
    seen = [[(p.sample, p.step, p.steps) for p in reader] for reader in readers]
    assert seen[0] == [(sample, step, 5) for step in (2, 4, 5) for sample in (3, 4)]
    assert seen[1] == seen[0][-3:]
    assert list(ticket.stream()) == [], "it has ended"
    with pytest.raises(UsageError, match="0 previews"):
        ticket.stream(most=0)
    with pytest.raises(UsageError, match="no previews of 'y'"):
        ticket.stream("y")  # type: ignore[arg-type]


def test_a_closed_scheduler_refuses() -> None:
    running, _ = scheduler()
    kept = submit(running, SHORT)
    running.close()
    with pytest.raises(UsageError, match="closed"):
        submit(running, SHORT)
    finish(running)
    check(kept, SHORT)
    assert not running.wait()


def test_a_defect_of_the_scheduler_ends_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    running, _ = scheduler()
    tickets = [submit(running, SHORT), submit(running, LONG)]
    running.turn()
    tickets.append(submit(running, LONG))
    assert submit(running, LONG).cancel()
    monkeypatch.delattr(Scheduler, "_leave")  # what is broken must not be needed
    running.abandon(RuntimeError("a defect"))
    for ticket in tickets:
        with pytest.raises(RuntimeError, match="a defect"):
            ticket.result(0)
    assert (running.counts.failed, running.counts.cancelled) == (3, 1)
    assert running.counts.pending == running.occupied == 0
    assert not running.wait()
