"""Programs as tables of text."""

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.columns import UNBOUNDED, Column

Array = NDArray[np.float64]

_SHOWN = 5  # rows at each end of a long program


def program_text(title: str, table: Array, conds: Array, targets: Array) -> str:
    """Return a title, the names of the columns in use, and the rows without a long middle."""
    weights = [f"c{k}" for k in range(table.shape[1] - Column.HISTORY)]
    named = [column.name.lower() for column in Column if column < Column.HISTORY] + weights
    neutral: dict[int, float] = {Column.C_IN: 1.0, Column.GUIDANCE: 1.0}  # 0 in all others
    used = [
        i
        for i in range(Column.C_IN, table.shape[1])
        if i != Column.NULL_COND
        if named[i] in ("a", "b", "d") or np.any(table[:, i] != neutral.get(i, 0.0))
        if np.abs(table[:, i]).max() < UNBOUNDED
    ]
    header = ["row", "cond", *(named[i] for i in used), "alpha", "sigma"]

    def line(index: int) -> list[str]:
        row = table[index]
        return [
            str(index),
            f"{conds[int(row[Column.COND])]:g}",
            *(f"{row[i]:.6g}" for i in used),
            *(f"{value:.6g}" for value in targets[index + 1]),
        ]

    rows, left_out = range(len(table)), len(table) - 2 * _SHOWN
    if left_out > 1:
        gap = [f"({left_out} more)", *[""] * (len(header) - 1)]
        body = [*map(line, rows[:_SHOWN]), gap, *map(line, rows[-_SHOWN:])]
    else:
        body = [*map(line, rows)]
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    rendered = (
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, *body]
    )
    return "\n".join([title, *rendered])
