"""S6, in the scheduler: a backend that raises or gives NaN fails only the requests that it ran.

All others have their bits, and every request is counted. tests/runtime/scheduling/test_runner.py
tests a backend that hangs.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from difftool.bundle import Bundle
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.errors import CheckFailed
from difftool.runtime.model import Model
from difftool.runtime.protocols import Backend
from difftool.runtime.scheduling.scheduler import Scheduler
from difftool.runtime.scheduling.slots import IDLE, Entry, Slots
from tests.reliability.backends import Floats, opened
from tests.reliability.criteria import Cases
from tests.reliability.schedules import Schedule, alone, play, schedules

NAME = "onnxruntime-cpu"
RATE = 0.05  # of steps that raise, and of samples that begin as NaN


class Broken(Exception):
    """The error of a backend here."""


class Faulty:
    """Slots that fail at random; they know the seeds of the requests that must fail for it."""

    def __init__(self, inner: Slots, random: np.random.Generator) -> None:
        self._inner, self._random = inner, random
        self.sizes = inner.sizes
        self._seeds: dict[int, int] = {}
        self.hurt: set[int] = set()

    def place(self, program: Program, labels: Labels | None, row: int, cond: int) -> None:
        self._inner.place(program, labels, row, cond)

    def join(self, slot: int, entry: Entry) -> None:
        self._seeds[slot] = entry.draws.seed
        if self._random.random() < RATE:
            self.hurt.add(entry.draws.seed)
            entry = replace(entry, init=np.full_like(entry.x[None], np.nan))
        self._inner.join(slot, entry)

    def advance(self, places: Sequence[int]) -> None:
        broken, late = self._random.random(2) < (RATE, 0.5)
        if late or not broken:
            self._inner.advance(places)
        if broken:
            self.hurt |= {self._seeds[slot] for slot in places if slot != IDLE}
            raise Broken

    def read(self, slot: int, what: Literal["x", "denoised"]) -> Floats:
        return self._inner.read(slot, what)


def fails_alone(backend: Backend, bundle: Bundle) -> Callable[[Schedule], int]:
    """Return the check of S6, which returns how many requests failed."""

    def check(case: Schedule) -> int:
        faulty: list[Faulty] = []

        def change(slots: Slots) -> Slots:
            faulty.append(Faulty(slots, np.random.default_rng(case.asked[0].request.seed)))
            return faulty[0]

        tickets = play(backend, bundle, case, change)
        failed = 0
        for asked, ticket in zip(case.asked, tickets, strict=True):
            if ticket.cancelled():
                continue
            hurt = asked.request.seed in faulty[0].hurt
            if error := ticket.exception(0):
                assert isinstance(error, Broken | CheckFailed)
                assert hurt, f"{asked} failed for others"
                failed += 1
                continue
            assert not hurt, f"{asked} has a result of a backend that failed"
            wanted = alone(Model(bundle, backend, max_batch=1), asked.request)
            assert ticket.result(0).tobytes() == wanted.tobytes(), f"{asked} has other bits"
        return failed

    return check


@pytest.mark.criterion("S6")
def test_requests_fail_alone(
    guided: Bundle, cases: Cases, nightly: bool, note: Callable[[str], None]
) -> None:
    asked = schedules(guided, 500 if nightly else 40, deterministic=False)
    failed = cases.run(fails_alone(opened(guided, NAME), guided), asked)
    assert sum(failed) > len(failed) / 4
    note(f"S6: {sum(failed)} requests failed with their backend, in {len(failed)} schedules")


@pytest.mark.seeded("S6")
def test_a_step_that_failed_in_silence_is_seen(
    guided: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = Scheduler._fail

    def swallow(running: Scheduler, jobs: object, error: BaseException, *more: object) -> None:
        if not isinstance(error, Broken):
            fail(running, jobs, error, *more)  # type: ignore[arg-type]

    check = fails_alone(opened(guided, NAME), guided)
    some = list(schedules(guided, 10, deterministic=False))
    assert any([check(case) for case in some])
    monkeypatch.setattr(Scheduler, "_fail", swallow)
    # a step that did run before it raised runs twice, and its request can then lack noise
    told = "has a result of a backend that failed|failed for others"
    with pytest.raises(AssertionError, match=told):
        [check(case) for case in some]
