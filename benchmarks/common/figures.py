"""Figures with limits, and how they read in JSON and in a table."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, fields
from pathlib import Path
from typing import Any

HEADINGS = ("figure", "median", "quartiles", "limit", "verdict")
Record = Mapping[str, Any]  # what the JSON of a benchmark holds


@dataclass(frozen=True)
class Figure:
    """What was measured, once or in several rounds; their median counts.

    With a limit it passes or fails; without one it only informs. `absent` says why there are no
    values, `unjudged` why the limit is not for these; neither is a failure.
    """

    name: str
    values: Sequence[float]
    _: KW_ONLY
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    absent: str = ""
    unjudged: str = ""

    @property
    def median(self) -> float | None:
        """The median, or the only value; None if there is none."""
        return statistics.median(self.values) if self.values else None

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """The first and the third, of several values."""
        if len(self.values) < 2:
            return None
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def limit(self) -> str:
        """The limit in words; empty if there is none."""
        bounds = {"at most": self.at_most, "at least": self.at_least}
        return ", ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)

    @property
    def verdict(self) -> str:
        """ "pass", "FAIL", or empty if there is nothing to judge. NaN fails."""
        if not self.limit or self.median is None or self.unjudged:
            return ""
        low = -float("inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return "pass" if low <= self.median <= high else "FAIL"

    def cells(self) -> tuple[str, ...]:
        """Give name, median, quartiles, limit and verdict as texts."""
        median = self.absent if self.median is None else f"{self.median:.4g} {self.unit}".rstrip()
        quartiles = " .. ".join(f"{value:.4g}" for value in self.quartiles or ())
        return self.name, median, quartiles, self.limit, self.unjudged or self.verdict

    def record(self) -> dict[str, Any]:
        """Give the figure as it stands in JSON, with what follows from its values."""
        return {**asdict(self), "median": self.median, "verdict": self.verdict}


def figures_in(record: Record) -> list[Figure]:
    """Read the figures of a benchmark's JSON; numbers that JSON lacks stand there as texts."""
    names = [field.name for field in fields(Figure)]
    found = []
    for entry in record["figures"]:
        known = {name: entry[name] for name in names if name in entry}
        found.append(Figure(**{**known, "values": [float(value) for value in known["values"]]}))
    return found


def timed(seconds: Mapping[str, Sequence[float]], unit: str, factor: float = 1.0) -> list[Figure]:
    """Make a figure of what each candidate took; `factor` takes a second to the unit."""
    return [
        Figure(name, [factor * value for value in values], unit=unit)
        for name, values in seconds.items()
    ]


def read_record(path: Path) -> Record | None:
    """Read a benchmark's JSON; None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
