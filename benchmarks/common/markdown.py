"""Pages in Markdown: tables, numbers, and the page of any benchmark from its JSON."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from common.report import HEADINGS, Figure, Record, figures_in

_ALIGNED = ("---", "---:", "---", "---", "---")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str] = ()) -> str:
    """Lay out a table; without `align` all columns but the first are aligned to the right."""
    marks = align or ["---", *("---:" for _ in headings[1:])]
    lines = [[cell.replace("|", "/") for cell in row] for row in (headings, marks, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None) -> str:
    """Write a number in three digits, or more if it is large; nothing for None."""
    return "" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def words(record: Mapping[str, Any]) -> str:
    """Write keys and values one after another."""
    return ", ".join(f"{key} {value}" for key, value in record.items())


def figures_page(record: Record) -> str:
    """Write the page of a benchmark: its setup, the machine, and a row for each figure."""
    rows = [figure.cells() for figure in figures_in(record)]
    return (
        f"# {record['benchmark']}\n\nSetup: {words(record['setup'])}.\n\n"
        f"Machine: {words(record['machine'])}.\n\n{table(HEADINGS, rows, _ALIGNED)}\n"
    )


def in_columns(figures: Sequence[Figure]) -> str:
    """Lay out figures for a terminal."""
    rows = [HEADINGS, *(figure.cells() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def with_block(text: str, name: str, block: str) -> str:
    """Replace the part of a text that is marked with a name; ValueError if it does not stand once.

    The marks are `<!-- NAME: benchmarks/pages.py -->` and `<!-- /NAME -->`.
    """
    begin, end = f"<!-- {name}: benchmarks/pages.py -->", f"<!-- /{name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"{begin} does not stand once")
    return pattern.sub(lambda _: f"{begin}\n{block}\n{end}", text)
