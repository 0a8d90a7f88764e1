"""The shapes that an engine takes: the requested batches, and the table of any program."""

from collections.abc import Callable
from typing import Final

from difftool.diffusion.columns import Column
from difftool.diffusion.program import MAX_ROWS

Shape = tuple[int, ...]

# min, opt, max of the sizes that a program decides. The largest table repeats a program for labels.
_SLOTS: Final = (1, 2, 8)
_ROWS: Final = (1, 1000, 4 * MAX_ROWS)
_ELEMENTS: Final = 2**31 - 1  # the most that a tensor may have


def ranges(name: str, shape: Shape, batch: tuple[int, int, int]) -> tuple[Shape, Shape, Shape]:
    """Return the smallest, the expected and the largest shape of an input of the step graph.

    `shape` is the input's shape in the graph; -1 stands for a dynamic size.
    """
    shape_at: dict[str, Callable[[int], Shape]] = {
        "history": lambda i: (_SLOTS[i], batch[i], *shape[2:]),
        "table": lambda i: (_ROWS[i], Column.HISTORY + _SLOTS[i]),
        "cond_table": lambda i: (min(_ROWS[i], _ELEMENTS // shape[1]), shape[1]),
    }
    at = shape_at.get(name, lambda i: (batch[i], *shape[1:]))  # others: one for each sample
    return at(0), at(1), at(2)
