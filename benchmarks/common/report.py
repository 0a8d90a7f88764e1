"""The figures of a benchmark and their limits: as a table, an exit code, JSON and Markdown.

Little is imported until a report is made: a process that measures its children's memory must itself
be small.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Any

from common.machine import ROOT, machine

RESULTS = ROOT / "benchmarks/results"
HEADINGS = ("figure", "median", "quartiles", "limit", "verdict")
_FOLDER: Mapping[str, Any] = {"type": Path, "metavar": "FOLDER"}
OPTIONS: Mapping[str, Mapping[str, Any]] = {  # that several benchmarks have
    "out": {**_FOLDER, "help": "write NAME.json and NAME.md"},
    "data": {**_FOLDER, "default": ROOT.parent / "shared/data/mnist", "help": "MNIST's files"},
    "work": {**_FOLDER, "default": ROOT / "runs/bench", "help": "what is made once"},
    "threads": {"type": int, "help": "all cores by default"},
}
Record = Mapping[str, Any]  # what the JSON of a benchmark holds


@dataclass(frozen=True)
class Figure:
    """A figure that was measured, once or in several rounds, of which the median counts.

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
        """Give the median, or the only value; None if there is none."""
        return statistics.median(self.values) if self.values else None

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """Give the first and the third, of several values."""
        if len(self.values) < 2:
            return None
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def limit(self) -> str:
        """Give the limit in words; empty if there is none."""
        bounds = {"at most": self.at_most, "at least": self.at_least}
        return ", ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)

    @property
    def verdict(self) -> str:
        """Give "pass", "FAIL", or nothing if there is nothing to judge. NaN fails."""
        if not self.limit or self.median is None or self.unjudged:
            return ""
        high_enough = self.at_least is None or self.at_least <= self.median
        low_enough = self.at_most is None or self.median <= self.at_most
        return "pass" if high_enough and low_enough else "FAIL"

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
    derived = ("median", "verdict", "values")
    return [
        Figure(
            values=[float(value) for value in entry["values"]],
            **{name: value for name, value in entry.items() if name not in derived},
        )
        for entry in record["figures"]
    ]


def timed(seconds: Mapping[str, Sequence[float]], unit: str, factor: float = 1.0) -> list[Figure]:
    """Make a figure of what each candidate took; `factor` takes a second to the unit."""
    return [
        Figure(name, [factor * value for value in values], unit=unit)
        for name, values in seconds.items()
    ]


def parser(
    description: str | None, *names: str, rounds: int | None = None
) -> argparse.ArgumentParser:
    """Make a parser with those of OPTIONS that are named.

    `rounds` is the default of `--rounds`; without it there is no such option.
    """
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in names:
        result.add_argument(f"--{name}", **OPTIONS[name])
    if rounds is not None:
        result.add_argument("--rounds", type=int, default=rounds)
    return result


def finish(
    name: str, figures: Sequence[Figure], options: argparse.Namespace, **setup: object
) -> int:
    """Print the figures, and write them to the folder `--out`; give the exit code.

    `setup` says what they depend on; threads and rounds join it from the options.
    """
    from common.markdown import figures_page, in_columns, words

    if "threads" in options:
        setup["threads"] = options.threads or "all"
    if "rounds" in options:
        setup["rounds"] = options.rounds
    print(f"{name}: {words(setup)}")
    print(in_columns(figures))
    if options.out is not None:
        found = [figure.record() for figure in figures]
        record = {"benchmark": name, "machine": machine(), "setup": setup, "figures": found}
        write(options.out, record, figures_page(record))
    return failed(figures)


def write(folder: Path, record: Record, page: str) -> None:
    """Write a benchmark's JSON and its page."""
    from difftool.files import write_atomic, write_json

    write_json(folder / f"{record['benchmark']}.json", record)
    write_atomic(folder / f"{record['benchmark']}.md", page.encode())


def failed(figures: Sequence[Figure]) -> int:
    """Give the exit code: 1 if a figure failed."""
    return int(any(figure.verdict == "FAIL" for figure in figures))
