"""The beginning and the end of every benchmark: its options, and what it prints and writes.

Little is imported until a report is made: a process that measures its children's memory must itself
be small.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.figures import Figure
from common.machine import ROOT, machine

RESULTS = ROOT / "benchmarks/results"


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
