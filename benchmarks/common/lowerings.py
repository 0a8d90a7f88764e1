"""Other lowerings of what the step graph computes, to measure the chosen ones against.

Each rewrites a graph that was exported in the chosen lowerings.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from common.inside_torch import parity_kernels


def norm_by_layer_norm(graph: ir.Graph) -> None:
    """Lower the instance norm of the groups to layer norm over the numbers of a group."""
    for node, tape in _each(graph, "InstanceNormalization"):
        x = node.inputs[0]
        scale, bias = (_constant(tape, np.full(x.shape[-1], v, np.float32)) for v in (1, 0))
        attributes = {"axis": -1, "epsilon": node.attributes.get_float("epsilon")}
        tape.op("LayerNormalization", [x, scale, bias], attributes)


def norm_by_reductions(graph: ir.Graph) -> None:
    """Lower the instance norm of the groups to means of x and of its squared distances."""
    for node, tape in _each(graph, "InstanceNormalization"):
        x, axes = node.inputs[0], _constant(tape, np.array([-1], np.int64))
        epsilon = _constant(tape, np.float32(node.attributes.get_float("epsilon")))
        distance = tape.op("Sub", [x, tape.op("ReduceMean", [x, axes])])
        variance = tape.op("ReduceMean", [tape.op("Mul", [distance, distance]), axes])
        tape.op("Div", [distance, tape.op("Sqrt", [tape.op("Add", [variance, epsilon])])])


def affine_by_mul_and_add(graph: ir.Graph) -> None:
    """Lower the affine map behind the norm to Mul and Add, as the exporter does."""
    for node, tape in _each(graph, "BatchNormalization"):
        x, *numbers = node.inputs[:3]
        columns = (value.const_value.numpy()[:, None, None] for value in numbers)
        scale, bias = (_constant(tape, column) for column in columns)
        tape.op("Add", [tape.op("Mul", [x, scale]), bias])


def upsampling_by_transposed_conv(graph: ir.Graph) -> None:
    """Lower doubling and a 3x3 convolution to one transposed convolution with a kernel of 4x4."""
    doublings = []
    for conv, tape in _each(graph, "Conv"):
        resize = conv.inputs[0].producer()
        if resize is not None and resize.op_type == "Resize":
            kernels = parity_kernels(conv.inputs[1].const_value.numpy())
            inputs = [resize.inputs[0], _constant(tape, _transposed(kernels)), *conv.inputs[2:]]
            attributes = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]}
            tape.op("ConvTranspose", inputs, attributes)
            doublings.append(resize)
    graph.remove(doublings, safe=True)


def _transposed(kernels: np.ndarray) -> np.ndarray:
    """Join kernels by parity [2, 2, O, I, 2, 2] to that of a transposed convolution [I, O, 4, 4].

    Pixel 2i + p of the result sees pixel j = i + p - 1 + a of the image, through tap
    2i + p + 1 - 2j.
    """
    _, _, outputs, inputs, _, _ = kernels.shape
    weight = np.zeros((inputs, outputs, 4, 4), np.float32)
    for p, q, a, b in np.ndindex(2, 2, 2, 2):
        weight[:, :, 3 - p - 2 * a, 3 - q - 2 * b] = kernels[p, q, :, :, a, b].T
    return weight


def _each(graph: ir.Graph, kind: str) -> Iterator[tuple[ir.Node, Tape]]:
    """Give every node of a kind and a tape; what is then on the tape takes the node's place."""
    for node in [node for node in graph if node.op_type == kind]:
        tape = Tape()
        yield node, tape
        if tape.nodes:
            result = tape.nodes[-1].outputs
            ir.convenience.replace_nodes_and_values(
                graph, node, [node], tape.nodes, node.outputs[:1], result
            )


def _constant(tape: Tape, values: np.ndarray) -> ir.Value:
    return tape.op("Constant", [], {"value": ir.tensor(np.asarray(values))})
