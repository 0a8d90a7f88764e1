"""Write the nodes of an ONNX graph one by one, with names that nested graphs do not repeat."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, DTypeLike

Shape = Sequence[int | str | None]  # a dimension has a size, or a name, or neither
Attribute = int | Sequence[int] | str | ir.Graph


class Ops:
    """An unfinished graph. `ops("Add", a, b)` adds a node and returns its output.

    Graphs inside a node may use every value that was made before it. `plain` has the shapes of
    inputs that are no optionals of ONNX; see `optional`.
    """

    def __init__(
        self,
        numbers: Iterator[int] | None = None,
        plain: Mapping[str, Sequence[int | str]] | None = None,
    ) -> None:
        self.inputs: list[ir.Value] = []
        self._plain = plain
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
        made = [ir.val(f"{name}.{index}") for index in range(outputs)]
        self._nodes.append(ir.node(kind, inputs, attributes, outputs=made, name=name))
        return made

    def required(self, name: str, kind: ir.DataType) -> ir.Value:
        """Add an input [1] to this graph."""
        self.inputs.append(ir.val(name, kind, [1]))
        return self.inputs[-1]

    def optional(self, name: str, default: ir.Value) -> ir.Value:
        """Add an input that may be left out; return its value, or `default` if it has none.

        No shape is declared, so that an empty tensor of any rank stands for an absent input. In a
        graph of `plain` inputs only those are added, as tensors of these shapes, whose defaults are
        initializers of their names.
        """
        kind = default.dtype
        assert kind is not None
        if self._plain is not None:
            return self._overridable(name, default) if name in self._plain else default
        given = ir.val(name, type=ir.OptionalType(ir.TensorType(kind)))
        self.inputs.append(given)
        content = self.choice(
            self("OptionalHasElement", given),
            lambda inner: inner("OptionalGetElement", given),
            lambda inner: inner("Identity", inner.constant(np.zeros(0), kind.numpy())),
        )
        return self.choice(
            self("Greater", self("Size", content), self.constant(0, np.int64)),
            lambda inner: inner("Identity", content),
            lambda inner: inner("Identity", default),
        )

    def _overridable(self, name: str, default: ir.Value) -> ir.Value:
        """Make a constant an input of this name, which has its value if it is left out."""
        assert self._plain is not None
        assert default.dtype is not None
        assert default.const_value is not None
        values = default.const_value.numpy()
        self._initializers.remove(default)
        given = ir.val(name, default.dtype, self._plain[name])
        given.const_value = ir.tensor(values, name=name)
        self.inputs.append(given)
        self._initializers.append(given)
        return given

    def constant(self, values: ArrayLike, dtype: DTypeLike) -> ir.Value:
        """Add an initializer to this graph."""
        name = f"constant_{next(self._numbers)}"
        tensor = ir.tensor(np.asarray(values, dtype), name=name)
        self._initializers.append(ir.val(name, const_value=tensor))
        return self._initializers[-1]

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
            branches[name] = ops.graph(name, [write(ops)])
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
        number = ir.val(f"{name}.trip", ir.DataType.INT64, ())
        going = ir.val(f"{name}.going", ir.DataType.BOOL, ())
        before = [ir.val(f"{name}.state{index}", *of) for index, of in enumerate(types)]
        ops = Ops(self._numbers)
        ops.inputs = [number, going, *before]
        body = ops.graph(name, [ops("Identity", going), *write(ops, number, before)])
        return self.several("Loop", len(before), self.squeezed(trips), None, *state, body=body)

    def splice(self, model: ir.Model, prefix: str, **inputs: ir.Value) -> Sequence[ir.Value]:
        """Move a model's nodes and initializers into this graph, fed with `inputs`.

        Return its outputs. The model is empty afterwards.
        """
        graph = model.graph
        nodes, outputs = list(graph), list(graph.outputs)
        # An input's default is not needed, since all inputs are fed.
        initializers = [
            value for value in graph.initializers.values() if not value.is_graph_input()
        ]
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

    def graph(self, name: str, outputs: Sequence[ir.Value]) -> ir.Graph:
        """Return the finished graph."""
        return ir.Graph(
            self.inputs, outputs, nodes=self._nodes, initializers=self._initializers, name=name
        )
