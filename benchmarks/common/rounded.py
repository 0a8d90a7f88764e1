"""Run a graph of 16 bits in float32 that rounds as often, since few CPUs compute in 16 bits.

Each value that the graph keeps in fp16 or bf16 is rounded to it as soon as it is computed. Sums
inside a product stay in float32, as they do in tensor cores.
"""

import onnx
import onnx_ir as ir

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
MOVES = {"Concat", "Gather", "Reshape", "Resize", "Slice", "Split", "Transpose", "Unsqueeze"}


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a graph in float32 that rounds wherever a graph keeps 16 bits."""
    parsed = ir.from_proto(model)
    graph = parsed.graph
    for value in graph.initializers.values():
        if value.dtype in HALVES:
            wide = value.const_value.numpy().astype("float32")
            value.const_value, value.dtype = ir.tensor(wide, name=value.name), ir.DataType.FLOAT
    for node in list(graph):
        if node.op_type == "Cast" and node.attributes.get_int("to") in HALVES:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
        for value in node.outputs:
            if (half := value.dtype) in HALVES:
                value.dtype = ir.DataType.FLOAT
                if node.op_type not in MOVES:
                    _round(graph, node, value, half)
    return ir.to_proto(parsed)


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value, half: ir.DataType) -> None:
    """Cast a value to 16 bits and back."""
    narrow = ir.node("Cast", [value], {"to": half})
    wide = ir.node("Cast", narrow.outputs, {"to": ir.DataType.FLOAT})
    narrow.outputs[0].name, wide.outputs[0].name = f"{value.name}.narrow", f"{value.name}.wide"
    narrow.outputs[0].dtype, wide.outputs[0].dtype = half, ir.DataType.FLOAT
    value.replace_all_uses_with(wide.outputs[0])
    narrow.replace_input_with(0, value)
    graph.insert_after(node, [narrow, wide])
