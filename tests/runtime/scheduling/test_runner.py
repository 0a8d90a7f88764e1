"""A scheduler at work in its thread: futures, readers, and an end in every case."""

import asyncio
import gc
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

import difftool
from difftool.errors import UsageError
from difftool.runtime.request import Request
from difftool.runtime.scheduling.runner import Runner
from difftool.runtime.scheduling.ticket import Ticket
from tests import fresh
from tests.runtime.scheduling.fake import LONG, NOISY, SHORT, FakeSlots, expected, scheduler

SOON = 60  # seconds, for what needs none
ROOT = Path(__file__).resolve().parents[3]
LEFT = """
from difftool.runtime.request import Request
from difftool.runtime.scheduling.runner import Runner
from tests.runtime.scheduling.fake import LONG, scheduler
runner = Runner(scheduler(queue=200)[0])
for seed in range(200):
    runner.submit(Request(LONG, n=500, seed=seed), LONG)
"""
ON_DEVICE = """
import sys
from pathlib import Path
from difftool.runtime import Request
from tests.runtime.cuda.test_driver import on_device
model, _ = on_device(Path(sys.argv[1]))
for seed in range(40):
    ticket = model.submit(Request(n=500, seed=seed))
next(ticket.stream())
"""


@pytest.fixture
def running() -> Iterator[tuple[Runner, FakeSlots]]:
    made, slots = scheduler()
    runner = Runner(made)
    yield runner, slots
    slots.before = lambda places: None
    assert runner.close(drain=False, timeout=SOON)


def submit(runner: Runner, program: object = SHORT, **more: object) -> Ticket:
    request = Request(program, **{"n": 1, **more})  # type: ignore[arg-type]
    return runner.submit(request, request.program)  # type: ignore[arg-type]


class Gate:
    """A gate, at which every step waits until it is opened."""

    def __init__(self, slots: FakeSlots) -> None:
        self.reached, self._open = threading.Event(), threading.Event()
        slots.before = self._pass

    def _pass(self, places: object) -> None:
        self.reached.set()
        assert self._open.wait(SOON)

    def open(self) -> None:
        self._open.set()


def test_a_result_can_be_waited_for_in_a_thread_or_a_task(
    running: tuple[Runner, FakeSlots],
) -> None:
    runner, _ = running
    assert (submit(runner, NOISY, seed=3).result(SOON)[0] == expected(NOISY, 3, 0)).all()

    async def awaited() -> list[np.ndarray]:
        tickets = [submit(runner, NOISY, seed=seed) for seed in range(5)]
        return [await ticket for ticket in tickets] + [await asyncio.wrap_future(tickets[0])]

    found = asyncio.run(awaited())
    for seed, array in zip((0, 1, 2, 3, 4, 0), found, strict=True):
        assert (array[0] == expected(NOISY, seed, 0)).all()


def test_previews_can_be_read_in_a_thread_or_a_task(running: tuple[Runner, FakeSlots]) -> None:
    runner, slots = running
    gate = Gate(slots)
    ticket, other = submit(runner, LONG), submit(runner, LONG, seed=1)
    readers = ticket.stream(most=20), other.stream(most=20)

    async def read() -> list[int]:
        return [preview.step async for preview in readers[1]]

    gate.open()
    assert [preview.step for preview in readers[0]] == list(range(1, 13))
    assert asyncio.run(read()) == list(range(1, 13))


def test_a_task_that_gives_up_reading_harms_nobody(running: tuple[Runner, FakeSlots]) -> None:
    runner, slots = running
    gate = Gate(slots)
    ticket = submit(runner, LONG)
    reader = ticket.stream(most=20)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(reader), 0.01)

    asyncio.run(give_up())
    gate.open()
    assert [preview.step for preview in reader] == list(range(1, 13))


def test_a_task_that_is_cancelled_cancels_its_request(running: tuple[Runner, FakeSlots]) -> None:
    runner, slots = running
    gate = Gate(slots)
    ticket = submit(runner, LONG)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ticket, 0.01)

    asyncio.run(give_up())
    assert ticket.cancelled()
    gate.open()
    submit(runner).result(SOON)
    assert runner.counts.cancelled == 1
    assert runner.counts.pending == 0


def test_a_backend_that_hangs_is_seen_and_cannot_hold_up_the_end() -> None:
    made, slots = scheduler(clock=None)
    runner = Runner(made)
    gate = Gate(slots)
    ticket = submit(runner)
    assert gate.reached.wait(SOON)
    assert runner.healthy(0), "the clock of this test stands still"
    made._clock.now += 10  # type: ignore[attr-defined]
    assert not runner.healthy(9)
    assert not runner.close(drain=False, timeout=0.01)
    with pytest.raises(CancelledError):
        ticket.result(SOON)
    gate.open()
    assert runner.close(timeout=SOON)
    assert runner.counts.cancelled == runner.counts.accepted == 1
    assert not runner.healthy(100), "the thread has ended"


@pytest.mark.parametrize("defect", [ZeroDivisionError("a defect"), SystemExit("a defect")])
def test_a_defect_of_the_scheduler_leaves_nobody_waiting(
    defect: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = scheduler()

    def fail() -> None:
        raise defect

    monkeypatch.setattr(made, "_admit", fail)
    runner = Runner(made)
    with pytest.raises(difftool.DifftoolError, match="the scheduler ended: a defect"):
        submit(runner).result(SOON)
    with pytest.raises(UsageError, match="closed"):
        submit(runner)
    assert runner.close(timeout=SOON)


def test_a_task_learns_of_any_error(running: tuple[Runner, FakeSlots]) -> None:
    """A StopIteration cannot be raised into a task, which would then wait for ever."""
    runner, slots = running

    def fail(places: object) -> None:
        raise StopIteration

    slots.before = fail

    async def awaited() -> None:
        await submit(runner)

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        asyncio.run(awaited())


def test_a_callback_that_would_end_the_thread_harms_nobody(
    running: tuple[Runner, FakeSlots], caplog: pytest.LogCaptureFixture
) -> None:
    runner, slots = running
    gate = Gate(slots)
    bad, good = submit(runner), submit(runner, LONG, seed=1)
    bad.add_done_callback(lambda _: sys.exit("a callback"))
    reader = bad.stream(most=20)
    gate.open()
    assert (bad.result(SOON)[0] == expected(SHORT, 0, 0)).all()
    assert [preview.step for preview in reader] == [1, 2, 3]
    assert (good.result(SOON)[0] == expected(LONG, 1, 0)).all()
    assert (runner.counts.ok, runner.counts.failed) == (2, 0)
    assert "would end the scheduler's thread" in caplog.text


def test_closing_drains_or_cancels() -> None:
    for drain in (True, False):
        made, slots = scheduler()
        runner, gate = Runner(made), Gate(slots)
        tickets = [submit(runner, seed=seed) for seed in range(9)]
        assert gate.reached.wait(SOON)
        if drain:
            gate.open()
            assert runner.close(timeout=SOON)
        else:
            assert not runner.close(drain=False, timeout=0.01)
            gate.open()
            assert runner.close(timeout=SOON)
        counts = runner.counts
        assert counts.pending == 0
        assert (counts.ok if drain else counts.cancelled) == 9
        assert all(ticket.done() for ticket in tickets)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "difftool-scheduler"]


def test_no_thread_is_left_when_a_model_is_collected(tiny_bundle: Path) -> None:
    before = set(threads())
    model = difftool.load(tiny_bundle, threads=1)
    ticket = model.submit(Request(n=1))
    (thread,) = set(threads()) - before
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert ticket.result(SOON).shape == (1, 1, 8, 8)
    gc.collect()
    thread.join(SOON)
    assert not thread.is_alive()


def test_a_fork_submits_nothing(tiny_bundle: Path) -> None:
    model = difftool.load(tiny_bundle, threads=1)
    model.submit(Request(n=1)).result(SOON)
    runner, request = model.scheduler(), Request(model.default_program(), n=1)
    child = os.fork()
    if not child:
        refused = 0
        for submit in (model.submit, lambda asked: runner.submit(asked, asked.program)):
            try:
                submit(request)
            except UsageError:
                refused += 1
        os._exit(0 if refused == 2 and runner.close() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert model.submit(Request(n=1)).result(SOON).shape == (1, 1, 8, 8)


def test_an_application_that_ends_does_not_wait_for_its_requests() -> None:
    """It does not crash either, though a step is going on."""
    done = fresh.python("-c", LEFT, folder=ROOT)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_device_at_work_does_not_hold_up_the_end_of_an_application(tiny_bundle: Path) -> None:
    """Its thread ends before the scheduler's does."""
    done = fresh.python("-c", ON_DEVICE, str(tiny_bundle), folder=ROOT)
    assert (done.stdout, done.stderr) == ("", "")
