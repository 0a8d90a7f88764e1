"""Other lowerings of what the step graph computes, to measure the chosen ones against.

Each rewrites a graph that was exported in the chosen lowerings.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from difftool.export.lowerings.upsampling import parity_kernels


def norm_by_layer_norm(graph: ir.Graph) -> None:
    """Lower the instance norm of the groups to layer norm over the numbers of a group."""
    for node in _all(graph, "InstanceNormalization"):
        tape, x = Tape(), node.inputs[0]
        count = x.shape[-1]
        scale, bias = (_constant(graph, np.full(count, v, np.float32)) for v in (1, 0))
        attributes = {"axis": -1, "epsilon": node.attributes.get_float("epsilon")}
        tape.op("LayerNormalization", [x, scale, bias], attributes)
        _replace(graph, node, tape)


def norm_by_reductions(graph: ir.Graph) -> None:
    """Lower the instance norm of the groups to means of x and of its squared distances."""
    for node in _all(graph, "InstanceNormalization"):
        tape, x = Tape(), node.inputs[0]
        axes = _constant(graph, np.array([-1], np.int64))
        epsilon = _constant(graph, np.float32(node.attributes.get_float("epsilon")))
        distance = tape.op("Sub", [x, tape.op("ReduceMean", [x, axes])])
        variance = tape.op("ReduceMean", [tape.op("Mul", [distance, distance]), axes])
        tape.op("Div", [distance, tape.op("Sqrt", [tape.op("Add", [variance, epsilon])])])
        _replace(graph, node, tape)


def affine_by_mul_and_add(graph: ir.Graph) -> None:
    """Lower the affine map behind the norm to Mul and Add, as the exporter does."""
    for node in _all(graph, "BatchNormalization"):
        tape = Tape()
        scale, bias = (
            _constant(graph, value.const_value.numpy()[:, None, None]) for value in node.inputs[1:3]
        )
        tape.op("Add", [tape.op("Mul", [node.inputs[0], scale]), bias])
        _replace(graph, node, tape)


def upsampling_by_transposed_conv(graph: ir.Graph) -> None:
    """Lower doubling and a 3x3 convolution to one transposed convolution with a kernel of 4x4."""
    for resize in _all(graph, "Resize"):
        (conv,) = (use.node for use in resize.outputs[0].uses())
        kernels = parity_kernels(conv.inputs[1].const_value.numpy())
        tape = Tape()
        weight = _constant(graph, _transposed(kernels))
        attributes: dict[str, Any] = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1] * 4}
        tape.op("ConvTranspose", [resize.inputs[0], weight, *conv.inputs[2:]], attributes)
        _replace(graph, conv, tape)
        graph.remove(resize, safe=True)


def _transposed(kernels: np.ndarray) -> np.ndarray:
    """Kernels by parity [2, 2, O, I, 2, 2] as one of a transposed convolution [I, O, 4, 4].

    Pixel 2i + p of the result sees pixel j = i + p - 1 + a of the image, through tap
    2i + p + 1 - 2j.
    """
    _, _, outputs, inputs, _, _ = kernels.shape
    weight = np.zeros((inputs, outputs, 4, 4), np.float32)
    for p, q, a, b in np.ndindex(2, 2, 2, 2):
        weight[:, :, 3 - p - 2 * a, 3 - q - 2 * b] = kernels[p, q, :, :, a, b].T
    return weight


def _all(graph: ir.Graph, kind: str) -> list[ir.Node]:
    return [node for node in graph if node.op_type == kind]


def _constant(graph: ir.Graph, values: np.ndarray) -> ir.Value:
    name = f"lowering_{len(graph.initializers)}"
    tensor = ir.tensor(np.asarray(values), name=name)
    kind, shape = ir.TensorType(tensor.dtype), ir.Shape(np.shape(values))
    value = ir.Value(name=name, type=kind, shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def _replace(graph: ir.Graph, node: ir.Node, tape: Tape) -> None:
    """Put the tape's nodes, of which the last makes the result, in the place of a node."""
    nodes: Sequence[ir.Node] = tape.nodes
    old, new = node.outputs[0], nodes[-1].outputs[0]
    for index, part in enumerate(nodes):
        part.name = f"{node.name}_{index}"
        part.outputs[0].name = f"{old.name}_{index}"
    new.shape, new.dtype = old.shape, old.dtype
    graph.insert_before(node, nodes)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
