"""Measure what sharing steps costs, and what it gains.

- the scheduler of `Model.submit` against the loop of `Model.sample`, on a full batch of one program
- requests that come and go, against batches of `Model.sample`, when there is always work
- short requests among long ones, against batches of whole requests: Poisson arrivals at 0.7 of
  the capacity, of 10, 50, 250 and 1000 rows; simulated with a network of known cost, so exact
"""

import itertools
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from common.inside import Entry, Scheduler
from common.report import Figure, finish, parser, timed
from common.timing import Turn, interleave, ratios

import difftool
from difftool import Model, Program
from difftool.runtime import Request, SchedulerSettings

ROWS = (10, 50, 250, 1000)
LOAD = 0.7
MOST = 8  # samples in a step
OVERHEAD, SATURATED, SHORT, JOIN = 1.05, 0.95, 0.3, 1.0
STEP = 1.0, 0.1  # what a step of no samples costs, and each sample: as on a GPU that is half busy


def main() -> int:
    arguments = parser(__doc__, "out", "threads", rounds=20)
    arguments.add_argument("--model", default="ddpm-mnist", help="name, or folder of a bundle")
    arguments.add_argument("--steps", type=int, default=100, help="in each round")
    arguments.add_argument("--requests", type=int, default=1000, help="of the simulation")
    options = arguments.parse_args()
    model = difftool.load(options.model, threads=options.threads, max_batch=MOST)
    figures = [
        *measure(model, options.rounds, options.steps),
        *mixed(model, options.requests),
    ]
    setup = {"model": Path(options.model).name, "batch": MOST, "requests": options.requests}
    return finish("serving", figures, options, **setup, steps=options.steps)


def measure(model: Model, rounds: int, steps: int) -> list[Figure]:
    """Compare the scheduler with the loop, and full use with batches of one call."""
    program = difftool.samplers.ddim(model.spec, steps=steps)
    half = difftool.samplers.ddim(model.spec, steps=steps // 2)
    candidates = {
        "loop": lambda: deque(model.stream(program, n=MOST), maxlen=0),
        "scheduler": lambda: drawn(model, program, [MOST]),
        "static batches": lambda: model.sample(half, n=2 * MOST),
        "requests that come and go": lambda: drawn(model, half, [1] * (2 * MOST)),
    }
    turns: dict[str, Turn] = dict(candidates)
    seconds = interleave(turns, rounds=rounds)
    to_loop = ratios(seconds["scheduler"], seconds["loop"])
    to_static = ratios(seconds["static batches"], seconds["requests that come and go"])
    return [
        *timed(seconds, "ms", 1e3),
        Figure("scheduler / loop", to_loop, at_most=OVERHEAD),
        Figure("rate of requests / of static batches", to_static, at_least=SATURATED),
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
    """Slots without a network: a step moves the clock by its cost."""

    now: float = 0.0
    sizes: Sequence[int] = tuple(range(1, MOST + 1))
    begun: dict[int, float] = field(default_factory=dict)  # by the seeds of requests
    _new: dict[int, int] = field(default_factory=dict)

    def place(self, *_: object) -> None: ...

    def join(self, slot: int, entry: Entry) -> None:
        self._new[slot] = entry.draws.seed

    def advance(self, places: Sequence[int]) -> None:
        for slot in places:
            if slot in self._new:
                self.begun[self._new.pop(slot)] = self.now
        self.now += cost(len(places))

    def read(self, slot: int, what: str) -> np.ndarray:
        return np.zeros(1, np.float32)


@dataclass(frozen=True)
class Arrival:
    """A request of one sample, and when it comes."""

    at: float
    program: Program


def cost(size: int) -> float:
    """Give what a step of so many samples takes."""
    return STEP[0] + STEP[1] * size


def arrivals(model: Model, count: int) -> list[Arrival]:
    """Give requests of any of ROWS, at LOAD of the capacity."""
    random = np.random.default_rng(0)
    programs = [difftool.samplers.ddim(model.spec, steps=rows) for rows in ROWS]
    rate = LOAD * MOST / cost(MOST) / float(np.mean(ROWS))
    times = np.cumsum(random.exponential(1 / rate, count)).tolist()
    return [Arrival(at, programs[random.integers(len(ROWS))]) for at in times]


def simulate(model: Model, asked: Sequence[Arrival], batching: str) -> tuple[list[float], Priced]:
    """Give how long each request took, and the slots that know when it began."""
    slots, took = Priced(), [0.0] * len(asked)
    settings = SchedulerSettings(batching=batching, queue=len(asked))  # type: ignore[arg-type]
    running = Scheduler(
        lambda count, most: slots,
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
            ticket = running.submit(Request(arrival.program, n=1, seed=number), arrival.program)
            ticket.add_done_callback(
                lambda _, i=number, at=arrival.at: took.__setitem__(i, slots.now - at)  # type: ignore[misc]
            )
        running.turn()
    return took, slots


def mixed(model: Model, count: int) -> list[Figure]:
    """Compare what the shortest and the longest requests take, at each percentile that counts."""
    asked = arrivals(model, count)
    shared, slots = simulate(model, asked, "step")
    whole, _ = simulate(model, asked, "request")

    def p95(took: Sequence[float], rows: int) -> float:
        pairs = zip(took, asked, strict=True)
        return float(np.percentile([t for t, a in pairs if len(a.program) == rows], 95))

    waits = [(slots.begun[i] - arrival.at) / cost(MOST) for i, arrival in enumerate(asked)]
    named = itertools.product((("step", shared), ("request", whole)), (ROWS[0], ROWS[-1]))
    return [
        *(
            Figure(f"P95 of {rows} rows, batching {name}", [p95(took, rows)], unit="units")
            for (name, took), rows in named
        ),
        Figure(
            f"P95 of {ROWS[0]} rows, step / request",
            [p95(shared, ROWS[0]) / p95(whole, ROWS[0])],
            at_most=SHORT,
        ),
        Figure(
            "P99 until the first row", [float(np.percentile(waits, 99))], unit="steps", at_most=JOIN
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
