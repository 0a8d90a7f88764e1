"""What a benchmark found: figures with limits, as a table, an exit code, JSON and Markdown.

Little is imported until a report is made: a process that measures its children's memory must itself
be small.
"""

import argparse
import importlib.metadata
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("difftool", "numpy", "onnxruntime", "openvino", "torch", "diffusers")
# What speed depends on most, by Linux's flags.
INSTRUCTIONS: Mapping[str, frozenset[str]] = {
    "AVX2": frozenset({"avx2"}),
    "AVX512": frozenset({"avx512f"}),
    "VNNI": frozenset({"avx512_vnni", "avx_vnni"}),
    "BF16": frozenset({"avx512_bf16", "amx_bf16"}),
}
_HEADINGS = ("figure", "median", "quartiles", "limit", "verdict")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What was measured, once or in several rounds; their median counts.

    With a limit it passes or fails; without one it only informs. `absent` says why there are no
    values, `unjudged` why the limit is not for these; neither is a failure.
    """

    name: str
    values: Sequence[float]
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    absent: str = ""
    unjudged: str = ""

    @property
    def median(self) -> float | None:
        """The median, or the only value; None where there is none."""
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
        """The limit in words; empty where there is none."""
        bounds = {"at most": self.at_most, "at least": self.at_least}
        return ", ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)

    @property
    def verdict(self) -> str:
        """ "pass", "FAIL", or empty where there is nothing to judge. NaN fails."""
        if not self.limit or self.median is None or self.unjudged:
            return ""
        low = -float("inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return "pass" if low <= self.median <= high else "FAIL"

    def cells(self) -> tuple[str, ...]:
        """Name, median, quartiles, limit and verdict as texts."""
        median = self.absent if self.median is None else f"{self.median:.4g} {self.unit}".rstrip()
        quartiles = " .. ".join(f"{value:.4g}" for value in self.quartiles or ())
        return self.name, median, quartiles, self.limit, self.unjudged or self.verdict


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--out", type=Path, metavar="FOLDER", help="write NAME.json and NAME.md")
    return result


def finish(name: str, figures: Sequence[Figure], setup: Mapping[str, Any], out: Path | None) -> int:
    """Print the figures, and write them to the folder `out`; the exit code, 1 where one failed."""
    from difftool.files import write_atomic, write_json

    print(f"{name}: {_words(setup)}")
    _print_table([_HEADINGS, *(figure.cells() for figure in figures)])
    if out is not None:
        record = {"benchmark": name, "machine": machine(), "setup": dict(setup)}
        found = [{**asdict(f), "median": f.median, "verdict": f.verdict} for f in figures]
        write_json(out / f"{name}.json", {**record, "figures": found})
        write_atomic(out / f"{name}.md", markdown(name, figures, setup).encode())
    return int(any(figure.verdict == "FAIL" for figure in figures))


def markdown(name: str, figures: Sequence[Figure], setup: Mapping[str, Any]) -> str:
    """The figures as a Markdown page."""
    rows = [_HEADINGS, ("---", "---:", "---", "---", "---"), *(f.cells() for f in figures)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"# {name}\n\nSetup: {_words(setup)}.\n\nMachine: {_words(machine())}.\n\n{table}\n"


def machine() -> dict[str, Any]:
    """What timings depend on; nothing that names the machine or its user."""
    return {
        "cpu": " ".join(_cpuinfo("model name")[:1]) or platform.processor() or "unknown",
        "instructions": " ".join(instructions()) or "unknown",
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": _commit(),
        **{name: version for name in _PACKAGES if (version := _version(name))},
    }


def instructions() -> list[str]:
    """Those of INSTRUCTIONS that this CPU has; none where Linux does not say."""
    flags = set(" ".join(_cpuinfo("flags")[:1]).split())
    return [name for name, signs in INSTRUCTIONS.items() if flags & signs]


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _words(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in record.items())


def _cpuinfo(key: str) -> list[str]:
    """What Linux says of the CPU under a key, once for each core."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(key)]


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
