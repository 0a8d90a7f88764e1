"""D1 of requests that share steps: whatever joins, leaves or is cancelled beside a sample, at
whatever row and in whatever slot, its bits are those that it has alone.

On a backend whose batches round differently, this is promised with `deterministic=True`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from difftool.bundle import Bundle
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.features import Feature
from difftool.diffusion.program import MAX_ROWS, Program
from difftool.diffusion.samplers import ddim, ddpm, dpmpp_3m, euler, heun, unipc
from difftool.runtime.backends import host_slots
from difftool.runtime.draws import Draws, row_noise
from difftool.runtime.model import Model
from difftool.runtime.protocols import Backend
from difftool.runtime.request import Request
from difftool.runtime.scheduling.scheduler import Scheduler, SchedulerSettings
from difftool.runtime.scheduling.slots import OffersSlots
from difftool.runtime.scheduling.ticket import Ticket
from tests import fixtures
from tests.reliability.backends import Floats, opened, with_torchscript
from tests.reliability.criteria import Cases

# Backends of which each size of a batch, and each slot, gives a sample the same bits.
INVARIANT = ("onnxruntime-cpu",)
SHORT = {"onnxruntime-cpu": 60, "openvino": 10, "torchscript": 10}
FULL = 500
MOST = (1, 2, 3, 5, 8)  # samples in a step


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


@pytest.fixture(scope="session")
def guided(made_once: fixtures.MakeOnce) -> Bundle:
    """A model of 7 x 5 pixels with classes, guidance, known values and a step.ts."""

    def make(folder: Path) -> None:
        spec = replace(fixtures.CLASSES_SPEC, shape=(1, 7, 5))
        arguments = {**fixtures.CLASSES_NETWORK.arguments, "channels": 4, "groups": 2}
        network = replace(fixtures.CLASSES_NETWORK, arguments=arguments)
        run = fixtures.save_model(folder / "run", spec, network, SamplerCall("ddpm"))
        fixtures.export_model(run, folder / "bundle", (Feature.GUIDANCE, Feature.KNOWN))

    folder = made_once("guided", make)
    return with_torchscript(folder / "bundle", folder / "run")


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


def play(backend: Backend, bundle: Bundle, case: Schedule) -> list[Ticket]:
    """Return the tickets of a schedule that has ended."""
    assert isinstance(backend, OffersSlots)
    settings = SchedulerSettings(slots=case.most + 3, ageing=3)
    running = Scheduler(backend.slots, bundle.spec, backend.features, case.most, settings)
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
    assert counts.accepted == counts.ok + counts.cancelled == len(case.asked)
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


def same_in_any_company(backend: Backend, bundle: Bundle) -> Callable[[Schedule], int]:
    """Return the check of D1, which returns how many samples it compared."""

    def check(case: Schedule) -> int:
        tickets = play(backend, bundle, case)
        reference = Model(bundle, backend, max_batch=case.most)
        compared = 0
        for asked, ticket in zip(case.asked, tickets, strict=True):
            if not ticket.cancelled():
                found, wanted = ticket.result(0), alone(reference, asked.request)
                assert found.tobytes() == wanted.tobytes(), f"{asked} has other bits alone"
                compared += asked.request.n
        return compared

    return check


@pytest.mark.criterion("D1")
@pytest.mark.parametrize("name", SHORT)
def test_requests_that_share_steps(
    name: str, guided: Bundle, cases: Cases, nightly: bool, note: Callable[[str], None]
) -> None:
    deterministic = name not in INVARIANT
    asked = schedules(guided, FULL if nightly else SHORT[name], deterministic=deterministic)
    compared = cases.run(same_in_any_company(opened(guided, name), guided), asked)
    how = ", deterministic" if deterministic else ""
    note(f"D1, {name}{how}: {sum(compared)} samples of {len(compared)} schedules have their bits")


@pytest.mark.seeded("D1")
def test_one_stream_of_noise_for_a_batch_is_seen(
    guided: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = same_in_any_company(opened(guided, "onnxruntime-cpu"), guided)
    noisy = replace(next(schedules(guided, 1, deterministic=False)), asked=())
    request = Request(programs(guided)[0], n=2, seed=3)
    single = replace(noisy, asked=(Asked(request, 0, None),))
    joined = replace(noisy, asked=(*single.asked, Asked(replace(request, seed=4), 2, None)))
    seeds: list[int] = []

    def shared(program: Program, draws: Draws) -> Iterator[Floats | None]:
        seeds.append(draws.seed)
        return row_noise(program, replace(draws, seed=seeds[0]))

    check(joined)
    monkeypatch.setattr(host_slots, "row_noise", shared)
    check(single)
    with pytest.raises(AssertionError, match="other bits alone"):
        check(joined)
