"""Random schedules of requests that share steps: which come, when, and which are cancelled."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from difftool.bundle import Bundle
from difftool.diffusion.program import MAX_ROWS, Program
from difftool.diffusion.samplers import ddim, ddpm, dpmpp_3m, euler, heun, unipc
from difftool.runtime.model import Model
from difftool.runtime.protocols import Backend
from difftool.runtime.request import Request
from difftool.runtime.scheduling.scheduler import Scheduler
from difftool.runtime.scheduling.settings import SchedulerSettings
from difftool.runtime.scheduling.slots import OffersSlots, Slots
from difftool.runtime.scheduling.ticket import Ticket
from tests.reliability.backends import Floats

MOST = (1, 2, 3, 5, 8)  # samples in a step
Change = Callable[[Slots], Slots]


@dataclass(frozen=True)
class Asked:
    """A request that comes before a turn, and may be cancelled before a later one."""

    request: Request
    turn: int
    cancelled: int | None

    def __repr__(self) -> str:
        request = self.request
        return f"{request.program and request.program.name} x {request.n} at turn {self.turn}"


@dataclass(frozen=True)
class Schedule:
    """Requests, and how many samples run together."""

    most: int
    asked: tuple[Asked, ...]


def programs(bundle: Bundle) -> list[Program]:
    spec = bundle.spec
    return [
        ddpm(spec, steps=6),
        ddim(spec, steps=4),
        ddim(spec, steps=5, eta=1.0),
        euler(spec, steps=3),
        heun(spec, steps=3),
        dpmpp_3m(spec, steps=7),
        unipc(spec, steps=5),
    ]


def schedules(bundle: Bundle, count: int, *, deterministic: bool) -> Iterator[Schedule]:
    """Yield random ones: requests join, and some are cancelled, at random turns."""
    random = np.random.default_rng(0)
    known = programs(bundle)

    def asked() -> Asked:
        n, turn = int(random.integers(1, 4)), int(random.integers(0, 12))
        request = Request(
            known[random.integers(len(known))],
            n=n,
            seed=int(random.integers(1 << 63)),
            first_sample=int(random.integers(100)),
            labels=None if random.random() < 0.5 else random.integers(0, 4, n),
            guidance_scale=float(random.choice([1.0, 1.0, 2.5])),
            deterministic=deterministic,
        )
        cancelled = turn + int(random.integers(6)) if random.random() < 0.2 else None
        return Asked(request, turn, cancelled)

    for _ in range(count):
        most = 5 if deterministic else int(random.choice(MOST))
        yield Schedule(most, tuple(asked() for _ in range(random.integers(2, 7))))


def play(
    backend: Backend, bundle: Bundle, case: Schedule, change: Change = lambda slots: slots
) -> list[Ticket]:
    """Return the tickets of a schedule that has ended; `change` replaces the backend's slots."""
    assert isinstance(backend, OffersSlots)
    settings = SchedulerSettings(slots=case.most + 3, ageing=3)

    def offer(count: int, most: int) -> Slots:
        return change(backend.slots(count, most))

    running = Scheduler(offer, bundle.spec, backend.features, case.most, settings)
    tickets: list[Ticket | None] = [None] * len(case.asked)
    for turn in range(1_000):
        for i, asked in enumerate(case.asked):
            if asked.turn == turn and asked.request.program is not None:
                tickets[i] = running.submit(asked.request, asked.request.program)
            if asked.cancelled == turn and (ticket := tickets[i]) is not None:
                ticket.cancel()
        if not running.turn() and None not in tickets:
            break
    counts = running.counts
    assert counts.accepted == len(case.asked)
    assert counts.accepted == counts.ok + counts.cancelled + counts.timeout + counts.failed
    assert running.occupied == running.pool.users == 0
    return [ticket for ticket in tickets if ticket is not None]


def alone(model: Model, request: Request) -> Floats:
    """Return the samples of a request, each drawn in a batch of its own."""

    def one(i: int) -> Floats:
        labels = None if request.labels is None else np.asarray(request.labels)[i : i + 1]
        first = request.first_sample + i
        single = replace(request, n=1, first_sample=first, labels=labels, every=MAX_ROWS)
        (state,) = model.run(single)
        return state.x.copy()

    return np.concatenate([one(i) for i in range(request.n)])
