"""Find the parts of an ONNX graph that TensorRT does not support, before anything is built."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from difftool.errors import ArtefactError

_TYPES: Final = frozenset(
    {
        TensorProto.BFLOAT16,
        TensorProto.BOOL,
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.FLOAT8E4M3FN,
        TensorProto.INT4,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.INT8,
        TensorProto.UINT8,
    }
)
_DOMAINS: Final = ("", "ai.onnx")
_BITS: Final = "TensorRT has no bitwise operators; draw the noise outside of the graph"
_REASONS: Final = {
    "BitShift": _BITS,
    "BitwiseAnd": _BITS,
    "BitwiseNot": _BITS,
    "BitwiseOr": _BITS,
    "BitwiseXor": _BITS,
}
# TensorRT parses these, but its engine would draw other numbers than the graph defines.
_SEEDS: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike"}
)
_SHOWN: Final = 3


def problems(model: onnx.ModelProto, supports: Callable[[str], bool]) -> list[str]:
    """Return a line for each node or tensor that TensorRT does not support.

    `supports` tells whether it supports an operator. Quantized tensors must be symmetric.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    found = [
        f"{kind} {value.name} has the unsupported type {TensorProto.DataType.Name(_type(value))}"
        for kind, values in (("input", graph.input), ("output", graph.output))
        for value in values
        if _type(value) not in _TYPES
    ]
    found += [
        f"weight {tensor.name} has the unsupported type "
        f"{TensorProto.DataType.Name(tensor.data_type)}"
        for tensor in graph.initializer
        if tensor.data_type not in _TYPES
    ]
    for node in _nodes(graph.node):
        reason = _reason(node, supports) or _zero_point(node, weights)
        if reason:
            found.append(f"node {node.name or node.output[0]} ({node.op_type}): {reason}")
    return found


def parser_errors(parser: Any) -> list[str]:
    """Return the parser's errors, one line for each."""
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        said = " ".join(error.desc().split())[:200]
        found.append(f"node {error.node_name() or '?'} ({error.node_operator() or '?'}): {said}")
    return found


def refuse(found: Iterable[str], variant: str) -> None:
    """Raise ArtefactError with the first of these lines, if there are any."""
    lines = list(found)
    if not lines:
        return
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    raise ArtefactError(
        f"{variant} does not support this step graph: {'; '.join(lines[:_SHOWN])}{more}",
        "run it with `backend=onnxruntime-cpu`, or export it without these nodes",
    )


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield all nodes, also those of graphs inside nodes."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g.node)


def _reason(node: onnx.NodeProto, supports: Callable[[str], bool]) -> str | None:
    if node.domain not in _DOMAINS:
        return f"its domain {node.domain} is not ONNX's own"
    if node.op_type in _SEEDS:
        return "TensorRT ignores its seed; make the noise an input"
    if not supports(node.op_type):
        return _REASONS.get(node.op_type, "TensorRT has no such operator")
    if node.op_type == "Cast" and (to := _cast_type(node)) not in _TYPES:
        return f"TensorRT has no {TensorProto.DataType.Name(to)}"
    return None


def _zero_point(node: onnx.NodeProto, weights: dict[str, TensorProto]) -> str | None:
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
        return None
    zero = weights.get(node.input[2])
    if zero is None or not np.any(numpy_helper.to_array(zero)):
        return None
    return "its zero point is not 0; quantize it symmetrically"


def _cast_type(node: onnx.NodeProto) -> int:
    return next(attribute.i for attribute in node.attribute if attribute.name == "to")


def _type(value: onnx.ValueInfoProto) -> int:
    return value.type.tensor_type.elem_type
