"""What a benchmark found: figures with limits, as a table, an exit code, JSON and Markdown.

Little is imported until a report is made: a process that measures its children's memory must itself
be small.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from common.machine import ROOT, machine

RESULTS = ROOT / "benchmarks/results"
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


def parser(
    description: str | None,
    *,
    rounds: int | None = None,
    threads: bool = False,
    work: bool = False,
    out: bool = True,
) -> argparse.ArgumentParser:
    """Make a parser with the options that several benchmarks have.

    `rounds` is the default of `--rounds`; `threads`, `work` and `out` say whether there are
    options of these names.
    """
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if out:
        result.add_argument(
            "--out", type=Path, metavar="FOLDER", help="write NAME.json and NAME.md"
        )
    if rounds is not None:
        result.add_argument("--rounds", type=int, default=rounds)
    if threads:
        result.add_argument("--threads", type=int, help="all cores by default")
    if work:
        folder = ROOT / "runs/bench"
        result.add_argument(
            "--work", type=Path, default=folder, metavar="FOLDER", help="what is made once"
        )
    return result


def finish(
    name: str, figures: Sequence[Figure], options: argparse.Namespace, **setup: object
) -> int:
    """Print the figures, and write them to the folder `--out`; the exit code, 1 if one failed.

    `setup` says what they depend on; threads and rounds join it from the options.
    """
    from common.markdown import figures_page, in_columns, words
    from difftool.files import write_atomic, write_json

    known = vars(options)
    if "threads" in known:
        setup["threads"] = options.threads or "all"
    if "rounds" in known:
        setup["rounds"] = options.rounds
    print(f"{name}: {words(setup)}")
    print(in_columns(figures))
    if options.out is not None:
        found = [figure.record() for figure in figures]
        record = {"benchmark": name, "machine": machine(), "setup": setup, "figures": found}
        write_json(options.out / f"{name}.json", record)
        write_atomic(options.out / f"{name}.md", figures_page(record).encode())
    return failed(figures)


def failed(figures: Sequence[Figure]) -> int:
    """Give the exit code: 1 if a figure failed."""
    return int(any(figure.verdict == "FAIL" for figure in figures))
