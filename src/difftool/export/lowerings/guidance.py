"""Let a step graph with guidance run the network once if no row of a batch is guided.

The exporter's graph runs the network on each sample twice, with its label and without, as one batch
of 2 N. Here the second half is cut to `guided` times N. If `guided` is 0 there is none, and the
output with the label stands for both.
"""

from typing import Final

import numpy as np
import onnx_ir as ir

from difftool.compile.lowerings.nodes import numbers
from difftool.log import logger
from difftool.preflight import GUIDED

_log = logger(__name__)

_NEWER: Final = "to have them at half the cost, export with the newest onnxscript and onnx-ir"
_EVALUATIONS: Final = "evaluations"  # the axis of 2 N, which may also be N


def skip_unguided(graph: ir.Graph) -> None:
    """Add the input `guided`, int64 [1], with the default 1, and cut the doubled batch by it.

    Older exporters compute sizes in the graph, among them 2 N. Such a graph stays as it is: it is
    right, but runs the network twice.
    """
    joins = [node for node in graph if _doubles(node)]
    splits = [node for node in graph if _halves(node)]
    computed = any(node.op_type == "Shape" for node in graph)
    if computed or (len(joins), len(splits)) != (2, 1):
        _log.warning("samples without guidance will cost as much as guided ones: %s", _NEWER)
        return
    double = joins[0].outputs[0].shape
    assert double is not None
    _rename(graph, double[0])
    guided = _Guided(graph)
    for join in joins:
        join.replace_input_with(1, guided.part(join, join.inputs[1], guided.zero, guided.extra))
    (split,) = splits
    slices = [use.node for use in split.outputs[0].uses()]
    ends = ((guided.zero, guided.size), (guided.extra, guided.both))
    for half, (first, last) in zip(slices, ends, strict=True):
        (squeeze,) = (use.node for use in half.outputs[0].uses())
        part = guided.part(squeeze, split.inputs[0], first, last)
        squeeze.outputs[0].replace_all_uses_with(part)
        graph.remove([half, squeeze], safe=True)
    graph.remove(split, safe=True)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]


class _Guided:
    """The input, and sizes that follow from it, each int64 [1]."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self.zero = self._constant(f"{GUIDED}.zero", 0)
        given = self._constant(GUIDED, 1)
        graph.inputs.append(given)
        x = next(value for value in graph.inputs if value.name == "x")
        self._first = next(iter(graph))
        self.size = self._computed("Shape", [x], {"start": 0, "end": 1})  # N
        self.extra = self._computed("Mul", [self.size, given])  # N or 0
        self.both = self._computed("Add", [self.size, self.extra])

    def part(
        self, at: ir.Node, value: ir.Value | None, first: ir.Value, last: ir.Value
    ) -> ir.Value:
        """Return value[first:last], which a new node before `at` computes."""
        assert value is not None
        assert value.shape is not None
        cut = ir.val(f"{at.name}.part", value.dtype, ir.Shape([None, *value.shape[1:]]))
        node = ir.node("Slice", [value, first, last, self.zero], outputs=[cut], name=f"{cut.name}")
        self._graph.insert_before(at, node)
        return cut

    def _constant(self, name: str, number: int) -> ir.Value:
        tensor = ir.tensor(np.array([number], np.int64), name=name)
        value = ir.val(name, ir.DataType.INT64, [1], const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def _computed(
        self, kind: str, inputs: list[ir.Value], attributes: dict[str, int] | None = None
    ) -> ir.Value:
        value = ir.val(f"{GUIDED}.{kind.lower()}", ir.DataType.INT64, [1])
        node = ir.node(kind, inputs, attributes, outputs=[value], name=f"node_{value.name}")
        self._graph.insert_before(self._first, node)
        return value


def _doubles(node: ir.Node) -> bool:
    """Tell whether a node makes a batch of 2 N: of x, or of the rows of cond_table."""
    if node.op_type != "Concat" or node.attributes.get_int("axis") != 0:
        return False
    first, second = node.inputs[0], node.inputs[-1]
    assert first is not None
    return first is second or (first.shape is not None and len(first.shape) == 1)


def _halves(node: ir.Node) -> bool:
    """Tell whether a node makes [2, N, *S] of a batch of 2 N."""
    target = numbers(node.inputs[1]) if node.op_type == "Reshape" else None
    return target is not None and target.tolist()[:2] == [2, -1]


def _rename(graph: ir.Graph, double: int | ir.SymbolicDim) -> None:
    """Name the axis of 2 N anew, for its name says that it is twice the batch."""
    for node in graph:
        for value in node.outputs:
            if value.shape is not None and double in list(value.shape):
                sizes = [
                    ir.SymbolicDim(_EVALUATIONS) if size == double else size for size in value.shape
                ]
                value.shape = ir.Shape(sizes)
