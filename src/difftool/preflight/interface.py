"""Check that a graph's inputs and outputs are those the loop binds, by name, type and size."""

from collections.abc import Mapping
from typing import Final

from difftool.errors import ArtefactError
from difftool.preflight.parts import AGAIN, Graph, Value, fits

_FLOAT32: Final = 1  # ONNX's numbers
_INT64: Final = 7
GUIDED: Final = "guided"
"""An input of a step graph with guidance: 1, the default, or 0 if no row of a batch is guided."""

_FREE: Final = None
_TABLE: Final = Value(_FLOAT32, (_FREE, _FREE))
_ONE: Final = Value(_INT64, (1,))

Values = Mapping[str, Value]


def check_step(graph: Graph, name: str, shape: tuple[int, ...], *, known: bool = False) -> None:
    """Raise ArtefactError if a graph is not a step graph for samples of `shape` [*S].

    With `known` it must take known values and their mask.
    """
    sample = Value(_FLOAT32, (_FREE, *shape))
    history = Value(_FLOAT32, (_FREE, _FREE, *shape))
    row = Value(_INT64, (_FREE,))
    inputs = {"x": sample, "history": history, "row": row, "noise": sample, "table": _TABLE}
    if known:
        inputs |= {"known": sample, "mask": sample}
    outputs = {"x_next": sample, "history_next": history, "row_next": row, "denoised": sample}
    _compare(name, "input", graph.inputs, inputs, {"cond_table": _TABLE, GUIDED: _ONE})
    _check_default(graph, name)
    _compare(name, "output", graph.outputs, outputs)
    table = graph.inputs.get("cond_table", _TABLE).shape
    if "cond_table" in graph.inputs and (table is None or table[1] is None):
        raise _refused(name, "does not say how wide its input 'cond_table' is")


def check_conditioner(graph: Graph, name: str, classes: int) -> None:
    """Raise ArtefactError if a graph is not a conditioner of a model with `classes` classes."""
    inputs = {"cond": Value(_FLOAT32, (_FREE,))}
    if classes:
        inputs["label"] = Value(_INT64, (_FREE,))
    _compare(name, "input", graph.inputs, inputs)
    _compare(name, "output", graph.outputs, {"cond_table": _TABLE})


def _check_default(graph: Graph, name: str) -> None:
    """Refuse a `guided` that some runtimes would demand, or that stands for another number."""
    default = graph.constants.get(GUIDED)
    if GUIDED in graph.inputs:
        numbers = None if default is None else default.numbers
        if default is None or (default.kind, default.dims) != (_INT64, (1,)) or numbers != [1]:
            raise _refused(name, f"has another default of the input {GUIDED!r} than 1")


def _compare(
    name: str, what: str, found: Values, needed: Values, allowed: Values | None = None
) -> None:
    known = {**needed, **(allowed or {})}
    wrong = [key for key, value in found.items() if key in known and not _fits(value, known[key])]
    problems = {
        f"lacks the {what}": needed.keys() - found.keys(),
        f"has an unknown {what}": found.keys() - known.keys(),
        f"has another type or size of {what}": wrong,
    }
    for problem, names in problems.items():
        if names:
            raise _refused(name, f"{problem} {min(names)[:100]!r}")


def _refused(name: str, what: str) -> ArtefactError:
    return ArtefactError(f"{name} {what}", AGAIN, code="graph-interface")


def _fits(found: Value, wanted: Value) -> bool:
    if found.kind != wanted.kind or found.shape is None or wanted.shape is None:
        return False
    return fits(found.shape, wanted.shape)
