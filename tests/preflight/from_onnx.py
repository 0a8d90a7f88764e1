"""A graph of the onnx package as the plain data that preflight judges."""

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from difftool.preflight.parts import Attribute, Graph, Node, Tensor, Value

_WHOLE = (2, 3, 4, 5, 6, 7, 9, 12, 13)
_REAL = (1, 11)


def graph_of(model: onnx.ModelProto) -> Graph:
    """The outermost graph of a model."""
    graph = model.graph
    return Graph(
        inputs={value.name: _value(value) for value in graph.input},
        outputs={value.name: _value(value) for value in graph.output},
        constants={tensor.name: tensor_of(tensor) for tensor in graph.initializer},
        nodes=tuple(map(_node, graph.node)),
        opset={opset.domain: opset.version for opset in model.opset_import},
    )


def tensor_of(tensor: onnx.TensorProto) -> Tensor:
    numbers = None
    if tensor.data_type in _WHOLE + _REAL and np.prod(tensor.dims, dtype=object) <= 1024:
        kind = np.int64 if tensor.data_type in _WHOLE else np.float64
        numbers = numpy_helper.to_array(tensor).reshape(-1).astype(kind)
    dims = tuple(tensor.dims)
    return Tensor(tensor.name, tensor.data_type, dims, len(tensor.raw_data), numbers)


def _value(value: onnx.ValueInfoProto) -> Value:
    kind = value.type.tensor_type
    dims = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    return Value(kind.elem_type, dims)


def _node(node: onnx.NodeProto) -> Node:
    return Node(
        node.op_type,
        node.domain,
        node.name,
        tuple(node.input),
        tuple(node.output),
        {attribute.name: _attribute(attribute) for attribute in node.attribute},
    )


def _attribute(attribute: onnx.AttributeProto) -> Attribute:
    value: Any = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return tensor_of(value)
    if isinstance(value, onnx.GraphProto):
        return Graph()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (int, float)):
        return value
    return tuple(item.decode() if isinstance(item, bytes) else item for item in value)
