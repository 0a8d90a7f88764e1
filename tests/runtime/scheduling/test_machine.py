"""The scheduler under anything that callers, the clock and a backend may do, in any order."""

from concurrent.futures import CancelledError
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from difftool.errors import Busy, CheckFailed, DeadlineExceeded
from difftool.runtime.request import Request
from difftool.runtime.scheduling.ticket import Ticket
from tests.runtime.scheduling.fake import (
    LONG,
    NOISY,
    SHORT,
    Clock,
    expected,
    finish,
    scheduler,
)

MOST, QUEUE = 3, 4


class Broken(Exception):
    """The error of a backend here."""


class Machine(RuleBasedStateMachine):
    """Every ticket ends once, in the way that its own history explains, and with its own bits."""

    @initialize(
        batching=st.sampled_from(["step", "request", "off"]),
        slots=st.integers(3, 6),
        brief=st.sampled_from([len(NOISY), 100]),
    )
    def begin(self, batching: str, slots: int, brief: int) -> None:
        self.clock = Clock()
        self.running, self.slots = scheduler(
            MOST, self.clock, batching=batching, slots=slots, brief=brief, queue=QUEUE, ageing=3
        )
        self.running.pool.rows = 2 * len(LONG)
        self.asked: dict[Ticket, tuple[Request, float]] = {}
        self.cancelled: set[Ticket] = set()
        self.refused = 0
        self.hurt = False  # a step raised, or a sample became NaN

    @rule(
        program=st.sampled_from([SHORT, NOISY, LONG]),
        n=st.integers(1, 5),
        first_sample=st.integers(0, 3),
        deterministic=st.booleans(),
        priority=st.integers(0, 1),
        deadline=st.none() | st.integers(1, 30),
        label=st.none() | st.integers(0, 3),
    )
    def submit(
        self,
        *,
        program: Any,
        priority: int,
        deadline: int | None,
        label: int | None,
        **more: Any,
    ) -> None:
        request = Request(program, seed=len(self.asked), labels=label, **more)
        try:
            ticket = self.running.submit(request, program, priority=priority, deadline=deadline)
        except Busy:
            self.refused += 1
            return
        due = np.inf if deadline is None else self.clock.now + deadline
        self.asked[ticket] = request, due

    @rule(turns=st.integers(1, 6))
    def turn(self, turns: int) -> None:
        for _ in range(turns):
            self.running.turn()

    @rule(seconds=st.integers(1, 10))
    def pass_time(self, seconds: int) -> None:
        self.clock.now += seconds

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(list(self.asked)))
        if ticket.cancel():
            self.cancelled.add(ticket)

    @rule()
    def break_a_step(self) -> None:
        def fail(places: object) -> None:
            self.hurt = True
            raise Broken

        self.slots.before = fail
        self.running.turn()
        self.slots.before = lambda places: None

    @precondition(lambda self: self.running.occupied)
    @rule(data=st.data())
    def poison(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.slots.standing)))
        self.slots.standing[slot].x[:] = np.nan
        self.hurt = True

    @invariant()
    def nothing_is_lost(self) -> None:
        counts = self.running.counts
        assert (counts.accepted, counts.refused) == (len(self.asked), self.refused)
        assert counts.pending >= sum(not ticket.done() for ticket in self.asked)
        assert self.running.occupied == self.running.pool.users <= self.slots.count

    def teardown(self) -> None:
        finish(self.running)
        ended = {"ok": 0, "cancelled": 0, "timeout": 0, "failed": 0}
        for ticket, (request, due) in self.asked.items():
            ended[self.outcome(ticket, request, due)] += 1
        counts = self.running.counts
        assert {name: getattr(counts, name) for name in ended} == ended
        assert counts.pending == self.running.occupied == self.running.pool.users == 0

    def outcome(self, ticket: Ticket, request: Request, due: float) -> str:
        try:
            result = ticket.result(0)
        except CancelledError:
            assert ticket in self.cancelled
            return "cancelled"
        except DeadlineExceeded:
            assert due <= self.clock.now
            return "timeout"
        except (Broken, CheckFailed):
            assert self.hurt
            return "failed"
        assert ticket not in self.cancelled
        assert request.program is not None
        for i, x in enumerate(result):
            label = None if request.labels is None else int(np.asarray(request.labels)[i])
            sample = request.first_sample + i
            alone = expected(request.program, request.seed, sample, label)
            assert x.tobytes() == alone.tobytes(), (request, i)
        return "ok"


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=25)
