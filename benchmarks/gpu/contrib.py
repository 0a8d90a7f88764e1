"""Lower the norms and the attention of a step graph to ONNX Runtime's own operators.

`com.microsoft.GroupNorm` is one kernel with SiLU inside, instead of an instance norm, a batch norm,
a sigmoid and a product; `MultiHeadAttention` is a fused attention. Both are published in ONNX
Runtime's ContribOperators.md. Only the sweep of the benchmark uses this, until it is measured to
pay.
"""

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
from common.inside_torch import in_half
from onnx_ir.tape import Tape

DOMAIN = "com.microsoft"
NORM, ATTENTION = "GroupNorm", "MultiHeadAttention"
TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]  # channels


def with_contrib(model: onnx.ModelProto, precision: str = "fp32") -> onnx.ModelProto:
    """Return the step graph with contrib operators, its network in a precision.

    The norm's scale and bias stay float32 in 16 bits: its CUDA kernel takes nothing else.
    """
    parsed = ir.from_proto(model)
    parsed.graph.opset_imports[DOMAIN] = 1
    affine = {}
    for last, *found in [*_norms(parsed.graph)]:
        affine[_lower_norm(parsed.graph, last, *found)] = found[2:4]
    for last, *found in [*_attentions(parsed.graph)]:
        _lower_attention(parsed.graph, last, *found)
    ir.passes.common.RemoveUnusedNodesPass()(parsed)
    exact = ir.to_proto(parsed)
    if precision not in ("fp16", "bf16"):
        return exact
    lowered = ir.from_proto(in_half(exact, precision))
    for node in lowered.graph:
        if node.op_type == NORM:
            for index, value in enumerate(affine[node.name], 1):
                kept = ir.val(value.name, const_value=value.const_value)
                lowered.graph.initializers.setdefault(value.name, kept)
                node.replace_input_with(index, lowered.graph.initializers[value.name])
    ir.passes.common.RemoveUnusedNodesPass()(lowered)
    return ir.to_proto(lowered)


def _norms(graph: ir.Graph) -> Iterator[tuple]:
    """Find Reshape, InstanceNormalization, Reshape, BatchNormalization, and SiLU if it follows.

    Gives the last node, x, whether it ends in SiLU, scale, bias, the groups and epsilon.
    """
    for batch_norm in graph:
        back = batch_norm.inputs[0].producer() if batch_norm.inputs else None
        norm = back.inputs[0].producer() if back is not None and back.inputs else None
        if batch_norm.op_type != "BatchNormalization" or norm is None:
            continue
        if norm.op_type != "InstanceNormalization":
            continue
        x = norm.inputs[0].producer().inputs[0]
        last = _silu(batch_norm.outputs[0])
        scale, bias = batch_norm.inputs[1:3]
        groups = len(norm.inputs[1].const_value.numpy())
        epsilon = norm.attributes.get_float("epsilon")
        yield last or batch_norm, x, last is not None, scale, bias, groups, epsilon


def _silu(value: ir.Value) -> ir.Node | None:
    """Return the product of a value with its sigmoid, if nothing else reads the value."""
    users = {use.node.op_type: use.node for use in value.uses()}
    if users.keys() != {"Sigmoid", "Mul"} or len(value.uses()) != 2:
        return None
    same = set(users["Mul"].inputs) == {value, users["Sigmoid"].outputs[0]}
    return users["Mul"] if same and len(users["Sigmoid"].outputs[0].uses()) == 1 else None


def _lower_norm(
    graph: ir.Graph, last: ir.Node, x: ir.Value, silu: bool, scale: ir.Value, bias: ir.Value,
    groups: int, epsilon: float,
) -> str:  # fmt: skip
    """Put the operator, which takes channels last, in the place of `last`; give its name."""
    tape, name = Tape(), f"{last.outputs[0].name}.contrib"
    batch, channels, *size = last.outputs[0].shape
    rows = tape.op("Transpose", [x], {"perm": TO_LAST})
    asked = {"activation": int(silu), "groups": groups, "epsilon": epsilon, "channels_last": 1}
    normed = tape.op(NORM, [rows, scale, bias], asked, domain=DOMAIN, name=name)
    result = tape.op("Transpose", [normed], {"perm": TO_FIRST})
    for value in (rows, normed):
        value.shape = ir.Shape([batch, *size, channels])
    _replace(graph, last, tape, result)
    return name


def _attentions(graph: ir.Graph) -> Iterator[tuple]:
    """Find softmax(scale q k') v of [N, heads, P, D]: the last node, q, k', v and the scale."""
    for softmax in graph:
        if softmax.op_type != "Softmax":
            continue
        scores = softmax.inputs[0].producer()
        scaled = scores.inputs[0].producer() if scores is not None else None
        if scaled is None or (scores.op_type, scaled.op_type) != ("MatMul", "Mul"):
            continue
        (use,) = softmax.outputs[0].uses()
        scale = float(scaled.inputs[1].const_value.numpy())
        yield use.node, scaled.inputs[0], scores.inputs[1], use.node.inputs[1], scale


def _lower_attention(
    graph: ir.Graph, last: ir.Node, q: ir.Value, k: ir.Value, v: ir.Value, scale: float
) -> None:
    """Put the operator, which takes [N, P, heads * D], in the place of `last`."""
    tape = Tape()
    batch, heads, pixels, width = last.outputs[0].shape

    def reshaped(value: ir.Value, *shape: int) -> ir.Value:
        target = tape.op("Constant", [], {"value": ir.tensor(np.array([-1, *shape], np.int64))})
        result = tape.op("Reshape", [value, target])
        result.shape = ir.Shape([batch, *shape])
        return result

    def flat(value: ir.Value, perm: list[int]) -> ir.Value:
        rows = tape.op("Transpose", [value], {"perm": perm})
        rows.shape = ir.Shape([batch, pixels, heads, width])
        return reshaped(rows, pixels, heads * width)

    inputs = [flat(q, [0, 2, 1, 3]), flat(k, [0, 3, 1, 2]), flat(v, [0, 2, 1, 3])]
    asked = {"num_heads": heads, "scale": scale}
    found = tape.op(ATTENTION, inputs, asked, domain=DOMAIN)
    found.shape = ir.Shape([batch, pixels, heads * width])
    split = reshaped(found, pixels, heads, width)
    _replace(graph, last, tape, tape.op("Transpose", [split], {"perm": [0, 2, 1, 3]}))


def _replace(graph: ir.Graph, last: ir.Node, tape: Tape, result: ir.Value) -> None:
    """Put the nodes of a tape in the place of a node with one output."""
    result.shape = last.outputs[0].shape
    for index, node in enumerate(tape.nodes):
        (value,) = node.outputs
        value.name = f"{last.outputs[0].name}.{node.op_type}{index}"
        value.dtype = ir.DataType.INT64 if node.op_type == "Constant" else ir.DataType.FLOAT
    ir.convenience.replace_nodes_and_values(
        graph, last, [last], tape.nodes, last.outputs[:1], [result]
    )
