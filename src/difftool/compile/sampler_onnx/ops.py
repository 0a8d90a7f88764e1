"""Write the nodes of an ONNX graph one by one, with names that nested graphs do not repeat."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, DTypeLike

Shape = Sequence[int | str | None]  # a dimension has a size, or a name, or neither
Attribute = int | Sequence[int] | str | ir.Graph


class Ops:
    """An unfinished graph. `ops("Add", a, b)` adds a node and returns its output.

    Graphs inside a node may use every value that was made before it.
    """

    def __init__(self, numbers: Iterator[int] | None = None) -> None:
        self._numbers = count() if numbers is None else numbers
        self._nodes: list[ir.Node] = []
        self._initializers: list[ir.Value] = []

    def __call__(self, kind: str, *inputs: ir.Value | None, **attributes: Attribute) -> ir.Value:
        """Add a node and return its only output."""
        return self.several(kind, 1, *inputs, **attributes)[0]

    def several(
        self, kind: str, outputs: int, *inputs: ir.Value | None, **attributes: Attribute
    ) -> Sequence[ir.Value]:
        """Add a node and return its outputs."""
        name = f"{kind}_{next(self._numbers)}"
        node = ir.node(kind, inputs, attributes, num_outputs=outputs, name=name)
        for index, output in enumerate(node.outputs):
            output.name = f"{name}.{index}"
        self._nodes.append(node)
        return node.outputs

    def constant(self, values: ArrayLike, dtype: DTypeLike) -> ir.Value:
        """Add an initializer to this graph."""
        array = np.asarray(values, dtype)
        tensor = ir.tensor(array, name=f"constant_{next(self._numbers)}")
        initializer = ir.Value(
            name=tensor.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        self._initializers.append(initializer)
        return initializer

    def ints(self, *values: int) -> ir.Value:
        """Add a constant, int64 [len(values)]."""
        return self.constant(values, np.int64)

    def floats(self, *values: float) -> ir.Value:
        """Add a constant, float32 [len(values)]."""
        return self.constant(values, np.float32)

    def squeezed(self, vector: ir.Value) -> ir.Value:
        """Return a vector [1] as a scalar."""
        return self("Squeeze", vector, self.ints(0))

    def size(self, tensor: ir.Value, axis: int) -> ir.Value:
        """Return the size of a tensor along an axis, int64 [1]."""
        return self("Shape", tensor, start=axis, end=axis + 1)

    def numbers(self, first: ir.Value, end: ir.Value) -> ir.Value:
        """Return the numbers from `first` to `end`, both int64 [1], as int64 [end - first]."""
        one = self.constant(1, np.int64)
        return self("Range", self.squeezed(first), self.squeezed(end), one)

    def choice(
        self,
        condition: ir.Value,
        chosen: Callable[["Ops"], ir.Value],
        otherwise: Callable[["Ops"], ir.Value],
    ) -> ir.Value:
        """Return one of two values, by a bool []; each is written into a graph of its own."""
        branches = {}
        for name, write in (("then_branch", chosen), ("else_branch", otherwise)):
            ops = Ops(self._numbers)
            branches[name] = ops.graph(name, [], [write(ops)])
        return self("If", condition, **branches)

    def loop(
        self,
        trips: ir.Value,
        state: Sequence[ir.Value],
        types: Sequence[tuple[ir.DataType, Shape]],
        write: Callable[["Ops", ir.Value, Sequence[ir.Value]], Sequence[ir.Value]],
    ) -> Sequence[ir.Value]:
        """Return the state after `trips` of a loop, int64 [1].

        `write` writes a trip: it gets the body, the trip's number, int64 [], and the state before
        it, of these `types`, and returns the state after it.
        """
        name = f"loop_{next(self._numbers)}"
        number = value(f"{name}.trip", ir.DataType.INT64)
        going = value(f"{name}.going", ir.DataType.BOOL)
        before = [
            value(f"{name}.state{index}", kind, *shape) for index, (kind, shape) in enumerate(types)
        ]
        ops = Ops(self._numbers)
        outputs = [ops("Identity", going), *write(ops, number, before)]
        body = ops.graph(name, [number, going, *before], outputs)
        return self.several("Loop", len(before), self.squeezed(trips), None, *state, body=body)

    def splice(self, model: ir.Model, prefix: str, **inputs: ir.Value) -> Sequence[ir.Value]:
        """Move a model's nodes and initializers into this graph, fed with `inputs`.

        Return its outputs. The model is empty afterwards.
        """
        graph = model.graph
        nodes, outputs = list(graph), list(graph.outputs)
        initializers = list(graph.initializers.values())
        for taken in graph.inputs:
            taken.replace_all_uses_with(inputs[str(taken.name)])
        graph.outputs.clear()
        graph.initializers.clear()
        graph.remove(nodes)
        for named in [*initializers, *(output for node in nodes for output in node.outputs)]:
            named.name = prefix + str(named.name)
        for node in nodes:
            node.name = prefix + str(node.name)
        self._nodes += nodes
        self._initializers += initializers
        return outputs

    def graph(self, name: str, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Graph:
        """Return the finished graph."""
        return ir.Graph(
            inputs, outputs, nodes=self._nodes, initializers=self._initializers, name=name
        )


def value(name: str, kind: ir.DataType, *shape: int | str | None) -> ir.Value:
    """Return a value that no node makes."""
    return ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))
