"""Slots without a network: a row halves x and adds what its place in the common table says."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels, drawn_labels
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import ddim, ddpm
from difftool.runtime.draws import Draws, row_noise, start_noise
from difftool.runtime.scheduling.scheduler import Scheduler
from difftool.runtime.scheduling.settings import SchedulerSettings
from difftool.runtime.scheduling.slots import IDLE, Entry
from tests.fixtures import CLASSES_SPEC

Floats = NDArray[np.float32]

SPEC = replace(CLASSES_SPEC, shape=(2,))
SHORT, LONG, NOISY = ddim(SPEC, steps=3), ddim(SPEC, steps=12), ddpm(SPEC, steps=5)


@dataclass
class Standing:
    """A sample in a slot."""

    x: Floats
    row: int
    noise: Iterator[Floats | None]


class FakeSlots:
    """`before`, if it is set, is called with the places before a step; it may raise, or hang."""

    def __init__(self, count: int, most: int) -> None:
        self.count, self.most = count, most
        self.sizes = tuple(sorted({1, 2, most}))
        self.steps: list[list[int]] = []  # the slots that ran together
        self.places: list[list[int]] = []
        self.placed: list[tuple[Program, int | None]] = []
        self.before: Callable[[Sequence[int]], object] = lambda places: None
        self.standing: dict[int, Standing] = {}
        self._rows: dict[int, float] = {}

    def place(self, program: Program, labels: Labels | None, row: int, cond: int) -> None:
        label = None if labels is None else int(labels.of[0])
        self.placed.append((program, label))
        for i in range(len(program)):
            self._rows[row + i] = addend(program, i, label)

    def join(self, slot: int, entry: Entry) -> None:
        assert 0 <= slot < self.count
        noise = row_noise(entry.program, entry.draws)
        self.standing[slot] = Standing(entry.x.copy(), entry.row, noise)

    def advance(self, places: Sequence[int]) -> None:
        slots = [slot for slot in places if slot != IDLE]
        assert len(places) in self.sizes
        assert len(set(slots)) == len(slots)
        self.before(places)
        self.steps.append(slots)
        self.places.append(list(places))
        for slot in slots:
            sample = self.standing[slot]
            sample.x = updated(sample.x, self._rows[sample.row], next(sample.noise))
            sample.row += 1

    def read(self, slot: int, what: Literal["x", "denoised"]) -> Floats:
        return self.standing[slot].x


def updated(x: Floats, add: float, noise: Floats | None) -> Floats:
    fresh = np.float32(0) if noise is None else noise[0]
    return np.asarray(np.float32(0.5) * x + np.float32(add) + fresh, np.float32)


def addend(program: Program, row: int, label: int | None) -> float:
    return len(program) + 0.1 * row + 0.01 * (0 if label is None else label)


def expected(program: Program, seed: int, sample: int, label: int | None = None) -> Floats:
    """Return what a sample ends at if it runs alone."""
    draws = Draws(seed, np.array([sample]), SPEC.shape)
    x = start_noise(program, draws)[0]
    if label is None:
        label = int(drawn_labels(seed, np.array([sample]), SPEC.classes)[0])
    for row, noise in enumerate(row_noise(program, draws)):
        x = updated(x, addend(program, row, label), noise)
    return x


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def scheduler(
    most: int = 4, clock: Clock | None = None, **settings: object
) -> tuple[Scheduler, FakeSlots]:
    """Return a scheduler without a thread, and its slots."""
    made: list[FakeSlots] = []

    def offer(count: int, most: int) -> FakeSlots:
        made.append(FakeSlots(count, most))
        return made[0]

    chosen = SchedulerSettings(**settings)  # type: ignore[arg-type]
    found = Scheduler(offer, SPEC, frozenset(Feature), most, chosen, clock or Clock())
    return found, made[0]


def finish(scheduler: Scheduler) -> None:
    """Take turns until nothing is left."""
    for _ in range(10_000):
        if not scheduler.turn():
            return
    raise AssertionError("the scheduler never ends")
