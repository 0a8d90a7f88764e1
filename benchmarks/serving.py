"""Measure what sharing steps costs, and what it gains.

- the scheduler of `Model.submit` against the loop of `Model.sample`, on one sample and on a batch
- `Model.sample` in a model whose scheduler is idle, and, with `--before`, in an earlier checkout
- requests that come and go, against batches of `Model.sample`, when there is always work
- short requests among long ones, against batches of whole requests: Poisson arrivals at 0.7 of
  the capacity, of 10, 50, 250 and 1000 rows; simulated with a network of known cost, so exact, and
  with the real one, on a clock that moves by what each step takes
"""

import contextlib
import itertools
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common.inside import Entry, Scheduler
from common.process import Elsewhere
from common.report import Figure, finish, parser, timed
from common.timing import Turn, interleave, ratios

import difftool
from difftool import Model, Program
from difftool.runtime import Request, SchedulerSettings

ROWS = (10, 50, 250, 1000)
LOAD = 0.7
PATIENT = 1e9  # a deadline that is never near: a server gives one to each request
MOST = 8  # samples in a step
OVERHEAD, ALONE, SATURATED, SHORT, JOIN = 1.05, 1.03, 0.95, 0.3, 1.0
STEP = 1.0, 0.1  # what a step of no samples costs, and each sample: as on a GPU that is half busy
# Draws in an earlier checkout, each time that it is sent a line.
EARLIER = """
import sys
import difftool
name, threads, most, steps = sys.argv[1], *(int(word) or None for word in sys.argv[2:])
model = difftool.load(name, threads=threads, max_batch=most)
program = difftool.samplers.ddim(model.spec, steps=steps)
for line in sys.stdin:
    model.sample(program, n=most)
    print(line, end="", flush=True)
"""


def main() -> int:
    arguments = parser(__doc__, "out", "threads", rounds=20)
    arguments.add_argument("--model", default="ddpm-mnist", help="name, or folder of a bundle")
    arguments.add_argument("--steps", type=int, default=100, help="in each round")
    arguments.add_argument("--requests", type=int, default=1000, help="of the simulation")
    arguments.add_argument("--real", type=int, default=100, help="requests of the real network")
    arguments.add_argument(
        "--before", type=Path, metavar="FOLDER", help="an earlier checkout: git worktree add ..."
    )
    arguments.add_argument("--quick", action="store_true", help="minutes; proves that it runs")
    options = arguments.parse_args()
    if options.quick:
        options.rounds, options.steps, options.requests, options.real = 3, 20, 200, 12
    model = difftool.load(options.model, threads=options.threads, max_batch=MOST)
    figures = [
        *measure(model, options.rounds, options.steps),
        *alone(options.model, options.threads, options.rounds, options.steps, options.before),
        *mixed(model, options.requests),
        *mixed(model, options.real, real=True),
    ]
    setup = {"model": Path(options.model).name, "batch": MOST, "requests": options.requests}
    return finish("serving", figures, options, **setup, real=options.real, steps=options.steps)


def measure(model: Model, rounds: int, steps: int) -> list[Figure]:
    """Compare the scheduler with the loop, and full use with batches of one call."""
    program = difftool.samplers.ddim(model.spec, steps=steps)
    half = difftool.samplers.ddim(model.spec, steps=steps // 2)
    candidates = {
        "loop, one sample": lambda: deque(model.stream(program, n=1), maxlen=0),
        "scheduler, one sample": lambda: drawn(model, program, [1]),
        "loop": lambda: deque(model.stream(program, n=MOST), maxlen=0),
        "scheduler": lambda: drawn(model, program, [MOST]),
        "static batches": lambda: model.sample(half, n=2 * MOST),
        "requests that come and go": lambda: drawn(model, half, [1] * (2 * MOST)),
    }
    turns: dict[str, Turn] = dict(candidates)
    seconds = interleave(turns, rounds=rounds)
    one = ratios(seconds["scheduler, one sample"], seconds["loop, one sample"])
    to_loop = ratios(seconds["scheduler"], seconds["loop"])
    to_static = ratios(seconds["static batches"], seconds["requests that come and go"])
    return [
        *timed(seconds, "ms", 1e3),
        Figure("scheduler / loop, one sample", one, at_most=OVERHEAD),
        Figure("scheduler / loop", to_loop, at_most=OVERHEAD),
        Figure("rate of requests / of static batches", to_static, at_least=SATURATED),
    ]


def alone(
    name: str, threads: int | None, rounds: int, steps: int, before: Path | None
) -> list[Figure]:
    """Compare `Model.sample` beside a scheduler that is idle with one that has none."""
    plain, beside = (difftool.load(name, threads=threads, max_batch=MOST) for _ in range(2))
    beside.scheduler()
    program = difftool.samplers.ddim(plain.spec, steps=steps)
    candidates: dict[str, Turn] = {
        "sample": lambda: plain.sample(program, n=MOST),
        "sample, scheduler idle": lambda: beside.sample(program, n=MOST),
    }
    with contextlib.ExitStack() as stack:
        if before is not None:
            words = (name, threads or 0, MOST, steps)
            earlier = stack.enter_context(Elsewhere(EARLIER, before / "src", *words))
            candidates["sample, before"] = earlier.turn
        seconds = interleave(candidates, rounds=rounds)
    named = {
        "sample, scheduler idle / none": ("sample, scheduler idle", "sample"),
        "sample / before the scheduler": ("sample", "sample, before"),
    }
    return [
        *timed(seconds, "ms", 1e3),
        *(
            Figure(title, ratios(seconds[top], seconds[base]), at_most=ALONE)
            if base in seconds
            else Figure(title, [], at_most=ALONE, absent="give --before")
            for title, (top, base) in named.items()
        ),
    ]


def drawn(model: Model, program: Program, sizes: Sequence[int]) -> None:
    """Draw requests of so many samples through a scheduler."""
    settings = SchedulerSettings(queue=len(sizes))
    running = Scheduler(
        model.backend.slots,  # type: ignore[attr-defined]
        model.spec,
        model.backend.features,
        MOST,
        settings,
    )
    for seed, n in enumerate(sizes):
        running.submit(Request(program, n=n, seed=seed), program)
    while running.turn():
        pass


@dataclass
class Priced:
    """Slots without a network: a step moves the clock by its cost.

    With `real` slots their network runs, and the clock moves by what that took.
    """

    real: Any = None
    now: float = 0.0
    sizes: Sequence[int] = tuple(range(1, MOST + 1))
    begun: dict[int, float] = field(default_factory=dict)  # by the seeds of requests
    _new: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.real is not None:
            self.sizes = self.real.sizes

    def place(self, *asked: Any) -> None:
        self._call("place", *asked)

    def join(self, slot: int, entry: Entry) -> None:
        self._new[slot] = entry.draws.seed
        self._call("join", slot, entry)

    def advance(self, places: Sequence[int]) -> None:
        for slot in places:
            if slot in self._new:
                self.begun[self._new.pop(slot)] = self.now
        if self.real is None:
            self.now += cost(len(places))
        self._call("advance", places)

    def read(self, slot: int, what: str) -> Any:
        found = self._call("read", slot, what)
        return np.zeros(1, np.float32) if found is None else found

    def _call(self, name: str, *asked: Any) -> Any:
        if self.real is None:
            return None
        begin = time.perf_counter()
        found = getattr(self.real, name)(*asked)
        self.now += time.perf_counter() - begin
        return found


@dataclass(frozen=True)
class Arrival:
    """A request of one sample, and when it comes."""

    at: float
    program: Program


def cost(size: int) -> float:
    """Give what a step of so many samples takes."""
    return STEP[0] + STEP[1] * size


def arrivals(model: Model, count: int, full: float) -> list[Arrival]:
    """Give requests of any of ROWS, at LOAD of the capacity; `full` is what a full step takes."""
    random = np.random.default_rng(0)
    programs = [difftool.samplers.ddim(model.spec, steps=rows) for rows in ROWS]
    rate = LOAD * MOST / full / float(np.mean(ROWS))
    times = np.cumsum(random.exponential(1 / rate, count)).tolist()
    return [Arrival(at, programs[random.integers(len(ROWS))]) for at in times]


def full_step(model: Model, steps: int = 20) -> float:
    """Measure what a full step of the real network takes."""
    program = difftool.samplers.ddim(model.spec, steps=steps)
    turns: dict[str, Turn] = {"full": lambda: drawn(model, program, [MOST])}
    return float(np.median(interleave(turns, rounds=3)["full"])) / steps


def simulate(
    model: Model, asked: Sequence[Arrival], batching: str, *, real: bool = False
) -> tuple[list[float], Priced]:
    """Give how long each request took, and the slots that know when it began."""
    slots, took = Priced(), [0.0] * len(asked)

    def offer(count: int, most: int) -> Priced:
        nonlocal slots
        if real:
            slots = Priced(model.backend.slots(count, most))  # type: ignore[attr-defined]
        return slots

    settings = SchedulerSettings(batching=batching, queue=len(asked))  # type: ignore[arg-type]
    running = Scheduler(
        offer,
        model.spec,
        model.backend.features,
        MOST,
        settings,
        lambda: slots.now,
    )
    coming = deque(enumerate(asked))
    while coming or running.counts.pending:
        if not running.counts.pending:
            slots.now = max(slots.now, coming[0][1].at)
        while coming and coming[0][1].at <= slots.now:
            number, arrival = coming.popleft()
            request = Request(arrival.program, n=1, seed=number)
            ticket = running.submit(request, arrival.program, deadline=PATIENT)
            ticket.add_done_callback(
                lambda _, i=number, at=arrival.at: took.__setitem__(i, slots.now - at)  # type: ignore[misc]
            )
        running.turn()
    return took, slots


def mixed(model: Model, count: int, *, real: bool = False) -> list[Figure]:
    """Compare what the shortest and the longest requests take, at each percentile that counts."""
    full = full_step(model) if real else cost(MOST)
    asked = arrivals(model, count, full)
    shared, slots = simulate(model, asked, "step", real=real)
    whole, _ = simulate(model, asked, "request", real=real)
    unit, where = ("s", ", real network") if real else ("units", "")

    def p95(took: Sequence[float], rows: int) -> float:
        pairs = zip(took, asked, strict=True)
        return float(np.percentile([t for t, a in pairs if len(a.program) == rows], 95))

    waits = [(slots.begun[i] - arrival.at) / full for i, arrival in enumerate(asked)]
    named = itertools.product((("step", shared), ("request", whole)), (ROWS[0], ROWS[-1]))
    return [
        *(
            Figure(f"P95 of {rows} rows, batching {name}{where}", [p95(took, rows)], unit=unit)
            for (name, took), rows in named
        ),
        Figure(
            f"P95 of {ROWS[0]} rows, step / request{where}",
            [p95(shared, ROWS[0]) / p95(whole, ROWS[0])],
            at_most=SHORT,
        ),
        Figure(
            f"P99 until the first row{where}",
            [float(np.percentile(waits, 99))],
            unit="steps",
            # A real step takes now more and now less than the one that it is divided by.
            at_most=None if real else JOIN,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
