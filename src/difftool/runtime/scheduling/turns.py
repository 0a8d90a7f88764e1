"""Whose turn it is to run: some of the samples in slots, and where each stands in its batch."""

from collections.abc import Mapping
from typing import Final

from difftool.runtime.scheduling.job import Sample
from difftool.runtime.scheduling.policy import Claim, arrange, choose
from difftool.runtime.scheduling.slots import Slots

# Samples are copied into and out of a batch if they take turns: with one row each, that and the
# choice are 3 % of a step of the shipped DDPM on two cores.
ROWS: Final = 4


class Turns:
    """Chooses at most `most` samples to run together, for `ROWS` rows if others wait.

    A turn ends early if a sample comes or goes, and has one row as long as one that waits has run
    none. So whoever is new begins as soon as with a choice at each row.
    """

    def __init__(self, slots: Slots, most: int, ageing: int) -> None:
        self._slots, self._most, self._ageing = slots, most, ageing
        self._chosen: list[Sample] = []
        self._places: list[int] = []
        self._waiting: list[Sample] = []
        self._rows = 0  # that are left of this turn

    def end(self) -> None:
        """Choose anew at the next row: a sample has come or gone."""
        self._chosen, self._places, self._waiting = [], [], []  # keeps no request alive
        self._rows = 0

    def next(self, running: Mapping[int, Sample], now: float) -> tuple[list[Sample], list[int]]:
        """Return the samples that run the next row, and the slot at each place of their batch.

        `running` are all samples, by their slots. If a batch holds them all, they run until one
        comes or goes.
        """
        if not self._rows:
            self._choose(running, now)
        if self._waiting:
            self._rows -= 1
        for sample in self._waiting:
            sample.waited += 1
        return self._chosen, self._places

    def _choose(self, running: Mapping[int, Sample], now: float) -> None:
        samples = [running[slot] for slot in sorted(running)]
        claims = [
            Claim(s.job.priority, s.job.due(now), s.job.attained, s.waited, s.place)
            for s in samples
        ]
        chosen = set(choose(claims, self._most, self._ageing))
        self._chosen = [sample for i, sample in enumerate(samples) if i in chosen]
        self._waiting = [sample for i, sample in enumerate(samples) if i not in chosen]
        for sample in self._chosen:
            sample.waited = 0
        places = [sample.place for sample in self._chosen]
        slots = [sample.slot for sample in self._chosen]
        self._places = arrange(slots, places, self._slots.sizes)
        self._rows = ROWS if all(sample.done for sample in self._waiting) else 1
