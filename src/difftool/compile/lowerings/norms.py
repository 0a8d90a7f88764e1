"""Write group norms with LayerNormalization, which GPU runtimes have in every precision.

A group's numbers lie one after another, so a group norm is a layer norm of [N, groups, numbers]
with an affine map of the channels behind it. LayerNormalization computes its statistics in float32
(stash_type 1) even if its input and output have 16 bits, so no casts to float32 surround it.
"""

import numpy as np
import onnx_ir as ir

from difftool.compile.lowerings.nodes import NewNodes, numbers


def lower_norms(graph: ir.Graph) -> None:
    """Replace instance norms by layer norms, and batch norms of constants by Mul and Add."""
    for node in list(graph):
        if node.op_type == "InstanceNormalization":
            _to_layer_norm(graph, node)
        elif node.op_type == "BatchNormalization":
            _to_mul_and_add(graph, node)


def _to_layer_norm(graph: ir.Graph, norm: ir.Node) -> None:
    x, scale, bias = norm.inputs
    if x is None or x.shape is None or np.any(numbers(scale) != 1) or np.any(numbers(bias) != 0):
        return  # the exporter writes the affine map apart
    size = [length for length in x.shape[2:] if isinstance(length, int)]
    if len(size) != len(x.shape) - 2 or np.prod(size) < 2:
        return
    new = NewNodes(graph, str(norm.name))
    ones = new.constant("ones", np.ones(size, np.float32))
    attributes = {"axis": 2, "epsilon": norm.attributes.get_float("epsilon"), "stash_type": 1}
    new.replace([norm], new.node("LayerNormalization", [x, ones], x.shape, attributes))


def _to_mul_and_add(graph: ir.Graph, norm: ir.Node) -> None:
    x, (scale, bias, mean, variance) = norm.inputs[0], map(numbers, norm.inputs[1:])
    if x is None or x.shape is None or scale is None or bias is None:
        return
    if mean is None or variance is None:
        return
    columns = (-1, *(1 for _ in x.shape[2:]))
    factor = scale / np.sqrt(variance.astype(np.float64) + norm.attributes.get_float("epsilon"))
    shift = bias - mean * factor
    new = NewNodes(graph, str(norm.name))

    def column(name: str, values: np.ndarray) -> ir.Value:
        return new.constant(name, values.astype(np.float32).reshape(columns))

    scaled = new.node("Mul", [x, column("scale", factor)], x.shape)
    new.replace([norm], new.node("Add", [scaled, column("shift", shift)], x.shape))
