"""A program as a table to read."""

from typing import TYPE_CHECKING

import numpy as np

from difftool.diffusion.columns import UNBOUNDED, Column

if TYPE_CHECKING:
    from difftool.diffusion.program import Program

_SHOWN = 5  # rows at each end of a long program


def program_text(program: "Program") -> str:
    """Header line, column names, and the rows; the middle of a long program is left out."""
    table = program.table
    weights = [f"c{k}" for k in range(program.history)]
    named = [column.name.lower() for column in Column if column < Column.HISTORY] + weights
    used = [
        i for i in range(2, table.shape[1]) if np.any(table[:, i]) or named[i] in ("a", "b", "d")
    ]
    used = [i for i in used if np.abs(table[:, i]).max() < UNBOUNDED]
    header = ["row", "cond", *(named[i] for i in used), "alpha", "sigma"]
    body = [
        [
            str(index),
            f"{program.conds[int(row[Column.COND])]:g}",
            *(f"{row[i]:.6g}" for i in used),
            *(f"{value:.6g}" for value in program.targets[index + 1]),
        ]
        for index, row in enumerate(table)
    ]
    left_out = len(body) - 2 * _SHOWN
    if left_out > 1:
        gap = [f"({left_out} more)", *[""] * (len(header) - 1)]
        body = [*body[:_SHOWN], gap, *body[-_SHOWN:]]
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    rendered = (
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, *body]
    )
    title = f"{program.name}: {program.nfe} evaluations from {program.start}"
    return "\n".join([title, *rendered])
