"""The sizes that a graph's inputs have at least."""

from difftool.diffusion.columns import Column
from difftool.preflight import Graph


def smallest_sizes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Return the smallest sizes of a checked graph's inputs: 1 if they are free.

    The table has the columns that fit one slot of history.
    """
    sizes = {
        name: tuple(1 if size is None else size for size in value.shape or ())
        for name, value in graph.inputs.items()
    }
    return sizes | ({"table": (1, Column.HISTORY + 1)} if "table" in sizes else {})
