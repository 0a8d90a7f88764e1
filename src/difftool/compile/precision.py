"""Make a step graph whose network computes in 16 bits, by writing casts into the ONNX graph.

The casts go into the step graph and not into the PyTorch module. So a bundle is all that is needed,
without a second export, and every target that reads ONNX gets the same casts.

A node is inside the network if it is a convolution or a matrix product, or lies on a path from one
to another. Everything around the network stays float32: x, the row's arithmetic with its 1/sigma,
and the conditioning until it enters the network. So does the last product, which makes F.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from difftool.compile.lowerings import GPU, Lowering
from difftool.errors import ArtefactError, UsageError

PRODUCTS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

# These stay float32 inside the network: statistics, and operators that need more range.
_FLOAT32: Final = frozenset(
    {
        "Cast",
        "ConstantOfShape",
        "Exp",
        "GroupNormalization",
        "InstanceNormalization",
        "Log",
        "Pow",
        "Reciprocal",
        "ReduceL2",
        "ReduceMean",
        "ReduceSum",
        "Softmax",
        "Softplus",
        "Sqrt",
    }
)
# ONNX Runtime's CUDA provider has no bfloat16 of these (docs/BFloat16_Support.md in its sources).
# They only choose numbers, so float32 costs casts and changes nothing.
_WITHOUT_BFLOAT16: Final = frozenset({"Clip", "MaxPool", "Resize"})
_TYPES: Final = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}

# bfloat16 needs 22, the first opset whose convolutions take it. The nodes of a step graph mean the
# same in it as in the exporter's opset.
_OPSET: Final = {"fp16": 18, "bf16": 22}


def in_half(
    model: onnx.ModelProto, precision: str, lowerings: Sequence[Lowering] = GPU
) -> onnx.ModelProto:
    """Return the step graph with its network in "fp16" or "bf16"; inputs and outputs stay the same.

    It has the lowerings for GPUs; only benchmarks give others. Means, softmax and the statistics of
    norms inside the network compute in float32. UsageError if a weight is too large for fp16, or
    the precision is neither of the two.
    """
    require_half(precision)
    half = _TYPES[precision]
    parsed = ir.from_proto(model)
    for lowering in lowerings:
        lowering(parsed.graph)
    products = network_products(parsed.graph)
    after, before = _reached(products, forward=True), _reached(products, forward=False)
    inside = after & before | set(products)
    computing = [node for node in parsed.graph if _computes(node)]
    # Every row adds F to x, and no later layer averages out how the last product rounds.
    inside.remove(products[-1])
    exact = _FLOAT32 | _WITHOUT_BFLOAT16 if precision == "bf16" else _FLOAT32
    lowered = {node for node in computing if node in inside and node.op_type not in exact}
    casts = _Casts(parsed.graph)
    for node in computing:
        wanted = half if node in lowered else ir.DataType.FLOAT
        for index, value in enumerate(_data_inputs(node)):
            if value is not None and value.dtype in (half, ir.DataType.FLOAT):
                node.replace_input_with(index, casts.to(value, wanted))
        if node in lowered:
            for output in node.outputs:
                if output.dtype == ir.DataType.FLOAT:
                    output.dtype = half
    drop_unused(parsed.graph)
    opsets = parsed.graph.opset_imports
    opsets[""] = max(opsets[""], _OPSET[precision])
    result: onnx.ModelProto = ir.to_proto(parsed)
    onnx.checker.check_model(result, full_check=True)
    return result


def require_half(precision: str) -> None:
    """Raise UsageError for a precision that is not one of 16 bits."""
    if precision not in _TYPES:
        raise UsageError(f"unknown half precision {precision!r}", f"one of: {', '.join(_TYPES)}")


def network_products(graph: ir.Graph) -> list[ir.Node]:
    """Return the products of a step graph, all of which are the network's, in running order."""
    products = [node for node in graph if node.op_type in PRODUCTS]
    if not products:
        raise ArtefactError("this step graph contains no network", "export the bundle again")
    return products


def drop_unused(graph: ir.Graph) -> None:
    """Remove the initializers that no node reads."""
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]


def _reached(start: Iterable[ir.Node], *, forward: bool) -> set[ir.Node]:
    found: set[ir.Node] = set()
    left = list(start)
    while left:
        node = left.pop()
        for other in node.successors() if forward else node.predecessors():
            if other not in found:
                found.add(other)
                left.append(other)
    return found


def _computes(node: ir.Node) -> bool:
    """Tell whether a node computes with real numbers, and not only with their shape."""
    return node.op_type not in ("Shape", "Size") and any(
        value is not None and value.dtype == ir.DataType.FLOAT for value in node.inputs
    )


def _data_inputs(node: ir.Node) -> list[ir.Value | None]:
    """Return the inputs that have a precision; in Resize all but the first are scales and sizes."""
    return list(node.inputs[:1] if node.op_type == "Resize" else node.inputs)


class _Casts:
    """Casts of values to the precision that a node wants; each value is cast at most once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._done: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def to(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        if value.dtype == wanted:
            return value
        if (value, wanted) not in self._done:
            make = self._cast if value.const_value is None else self._rounded
            self._done[value, wanted] = make(value, wanted)
        return self._done[value, wanted]

    def _cast(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        name = f"{value.name}.{wanted.name.lower()}"
        cast = ir.val(name, wanted, value.shape)
        node = ir.node("Cast", [value], {"to": wanted}, outputs=[cast], name=f"cast_{name}")
        producer = value.producer()
        if producer is None:  # an input of the graph
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.insert_after(producer, node)
        return cast

    def _rounded(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        assert value.const_value is not None
        weight = value.const_value.numpy()
        with np.errstate(over="ignore"):
            rounded = weight.astype(wanted.numpy())
        if not np.isfinite(rounded.astype(np.float32)).all():
            raise UsageError(
                f"{value.name} holds {np.abs(weight).max():.3g}, too large for fp16",
                "choose `precision=bf16` or fp32",
            )
        name = f"{value.name}.{wanted.name.lower()}"
        twin = ir.val(name, const_value=ir.tensor(rounded, dtype=wanted, name=name))
        self._graph.register_initializer(twin)
        return twin
