"""Write new nodes into a step graph in place of old ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

Shape = ir.Shape | Sequence[int | ir.SymbolicDim]


class NewNodes:
    """New nodes with named outputs of known shape; ONNX Runtime chooses layouts by these shapes."""

    def __init__(self, graph: ir.Graph, stem: str) -> None:
        self._graph = graph
        self._stem = stem
        self._nodes: list[ir.Node] = []

    def constant(self, name: str, values: ArrayLike) -> ir.Value:
        """Add an initializer."""
        tensor = ir.tensor(np.ascontiguousarray(values), name=f"{self._stem}.{name}")
        value = ir.val(tensor.name, const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def node(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        shape: Shape,
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """Add a node with one float32 output of a shape, and return that output."""
        name = f"{self._stem}.{kind.lower()}{len(self._nodes)}"
        output = ir.val(name, ir.DataType.FLOAT, ir.Shape(shape))
        node = ir.node(kind, inputs, attributes, outputs=[output], name=f"node_{name}")
        self._nodes.append(node)
        return output

    def reshaped(self, value: ir.Value, shape: Shape) -> ir.Value:
        """Add a Reshape to [batch, ...]."""
        target = self.constant(f"shape{len(self._nodes)}", np.array([-1, *shape[1:]], np.int64))
        return self.node("Reshape", [value, target], shape)

    def replace(self, old: Sequence[ir.Node], result: ir.Value) -> None:
        """Put the new nodes in the place of old ones, the last of which gave the result."""
        self._graph.insert_before(old[-1], self._nodes)
        old[-1].outputs[0].replace_all_uses_with(result, replace_graph_outputs=True)
        read = {value for node in old for value in node.inputs if value is not None}
        self._graph.remove(old, safe=True)
        for value in read:
            if value.is_initializer() and not value.uses():
                del self._graph.initializers[str(value.name)]


def numbers(value: ir.Value | None) -> NDArray[Any] | None:
    """Return the numbers of a constant; None if it is none."""
    return None if value is None or value.const_value is None else value.const_value.numpy()
