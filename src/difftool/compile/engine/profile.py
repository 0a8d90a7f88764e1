"""The shapes that an engine takes: batches as asked for, and any table that a program may have."""

from collections.abc import Callable
from typing import Final

from difftool.diffusion.columns import Column
from difftool.diffusion.program import MAX_ROWS

Shape = tuple[int, ...]

# min, opt, max of what a program decides. The largest table repeats a program for some labels.
_SLOTS: Final = (1, 2, 8)
_ROWS: Final = (1, 1000, 4 * MAX_ROWS)
_ELEMENTS: Final = 2**31 - 1  # of a tensor, at most


def ranges(name: str, shape: Shape, batch: tuple[int, int, int]) -> tuple[Shape, Shape, Shape]:
    """The smallest, the expected and the largest shape of an input of the step graph.

    `shape` is the input's in the graph, where -1 stands for what may change.
    """
    shape_at: dict[str, Callable[[int], Shape]] = {
        "history": lambda i: (_SLOTS[i], batch[i], *shape[2:]),
        "table": lambda i: (_ROWS[i], Column.HISTORY + _SLOTS[i]),
        "cond_table": lambda i: (min(_ROWS[i], _ELEMENTS // shape[1]), shape[1]),
    }
    at = shape_at.get(name, lambda i: (batch[i], *shape[1:]))  # the others have one for each sample
    return at(0), at(1), at(2)
