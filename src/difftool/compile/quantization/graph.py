"""Put layers of a step graph's network in 8 bits, in the form that ONNX Runtime's CPU runs best.

Activations are unsigned with a zero point, since SiLU leaves little below 0, and have one scale for
each tensor. Weights are signed with a scale for each channel (U8S8, which VNNI multiplies). ONNX
Runtime computes in integers between a quantizer and its dequantizer.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from difftool.compile.precision import PRODUCTS, drop_unused, network_products

Ranges = dict[str, tuple[float, float]]  # value -> its smallest and largest element

LAYERS: Final = PRODUCTS - {"ConvTranspose"}  # the products that ONNX Runtime has in 8 bits

_FLOAT: Final = ir.DataType.FLOAT
_UINT8: Final = ir.DataType.UINT8

_LEVELS: Final = 255  # steps of an unsigned scale
_SYMMETRIC: Final = 127  # steps to each side of 0
_MIDDLE: Final = 128  # the zero point of an unsigned scale that is symmetric


def layers(model: onnx.ModelProto) -> list[str]:
    """Return names of the network's layers, in running order: its products but the first and last.

    The first reads x itself and the last makes F. Their errors would reach the sample in full, and
    they are cheap in float.
    """
    products = network_products(ir.from_proto(model).graph)
    found = [node for node in products if node.op_type in LAYERS]
    weighted = [node for node in found if _weight(node) is not None]
    outer = (*weighted[:1], *weighted[-1:])
    return [str(node.name) for node in found if node not in outer]


def titles(model: onnx.ModelProto) -> dict[str, str]:
    """Return titles, from the names of weights, of the network's products in running order."""
    found = {}
    for node in network_products(ir.from_proto(model).graph):
        name = str((_weight(node) or node).name)
        found[str(node.name)] = name.removeprefix("network.").removesuffix(".weight")
    return found


def in_8_bits(model: onnx.ModelProto, ranges: Ranges, chosen: Collection[str]) -> onnx.ModelProto:
    """Return the step graph with the `chosen` layers in 8 bits; activations have these ranges."""
    parsed = ir.from_proto(model)
    writer = _Writer(parsed.graph, ranges)
    for node in list(parsed.graph):
        if node.name in chosen:
            writer.quantize(node)
    drop_unused(parsed.graph)
    return ir.to_proto(parsed)


def _weight(node: ir.Node) -> ir.Value | None:
    second = node.inputs[1]
    return second if second is not None and second.const_value is not None else None


class _Writer:
    """A graph that quantizers are put into, from start to end; a value gets at most one."""

    def __init__(self, graph: ir.Graph, ranges: Ranges) -> None:
        self._graph = graph
        self._ranges = dict(ranges)
        self._twins: dict[ir.Value, tuple[ir.Value, float]] = {}  # the same in 8 bits; its scale
        self._new: list[ir.Node] = []  # nodes to insert

    def quantize(self, node: ir.Node) -> None:
        """Quantize the inputs of a product, and the output if it is a convolution."""
        data, second = node.inputs[:2]
        assert data is not None
        assert second is not None
        if second.const_value is None:
            node.replace_input_with(0, self._twin(data)[0])
            node.replace_input_with(1, self._twin(second)[0])
            self._graph.insert_before(node, self._new_nodes())
            return
        weight = second.const_value.numpy().astype(np.float64)
        parts = _parts(node)
        twin, scale, factors = self._joined(parts) if parts else (*self._twin(data), np.ones(1))
        if parts:
            weight = weight * factors.reshape(1, -1, 1, 1)
        axis = _channel_axis(node, weight)
        others = tuple(other for other in range(weight.ndim) if other != axis)
        scales = _positive(np.abs(weight).max(others, keepdims=True) / _SYMMETRIC)
        whole = np.round(weight / scales).astype(np.int8)
        scales = scales.reshape(-1)
        node.replace_input_with(0, twin)
        node.replace_input_with(1, self._constant(f"{node.name}.weight", whole, scales, axis))
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and bias.const_value is not None:
            # The bias has the scale of the sums of products that it is added to.
            sums = scale * scales
            added = np.round(bias.const_value.numpy() / sums).clip(-(2**31), 2**31 - 1)
            name = f"{node.name}.bias"
            node.replace_input_with(2, self._constant(name, added.astype(np.int32), sums, 0))
        self._graph.insert_before(node, self._new_nodes())
        if node.op_type == "Conv":
            uses = list(node.outputs[0].uses())
            twin, _ = self._twin(node.outputs[0])
            for use in uses:
                use.node.replace_input_with(use.idx, twin)
            self._graph.insert_after(node, self._new_nodes())

    def _twin(self, value: ir.Value) -> tuple[ir.Value, float]:
        """Return a value that went through 8 bits, and its scale."""
        if value not in self._twins:
            low, high = self._ranges[str(value.name)]
            scale = float(_positive((high - low) / _LEVELS))
            zero = round(-low / scale)
            twin = self._back(self._whole(value, scale, zero), scale, zero)
            self._ranges[str(twin.name)] = low, high
            self._twins[value] = self._twins[twin] = twin, scale
        return self._twins[value]

    def _joined(self, parts: Sequence[ir.Value]) -> tuple[ir.Value, float, NDArray[np.float64]]:
        """Return a concatenation of quantized parts, its scale, and factors for the weight.

        Skips have other ranges than the parts that they are joined to (Q-Diffusion, section 3.3).
        The concatenation has one scale, that of its first part. Those of the other parts go into
        the input channels of the weight.
        """
        largest = [max(map(abs, self._ranges[str(part.name)])) for part in parts]
        scales = _positive(np.array(largest) / _SYMMETRIC)
        wholes = [
            self._whole(part, scale, _MIDDLE, of="part")
            for part, scale in zip(parts, scales, strict=True)
        ]
        name = f"{'.'.join(str(part.name) for part in parts)}.joined"
        joined = self._node("Concat", wholes, f"{name}.u8", _UINT8, {"axis": 1})
        widths = [int(part.shape[1]) for part in parts]  # type: ignore[index, arg-type]
        factors = np.repeat(scales / scales[0], widths)
        return self._back(joined, scales[0], _MIDDLE), float(scales[0]), factors

    def _whole(self, value: ir.Value, scale: float, zero: int, of: str = "whole") -> ir.Value:
        name = f"{value.name}.{of}"
        parameters = self._parameters(name, scale, np.array(zero, np.uint8))
        return self._node("QuantizeLinear", [value, *parameters], name, _UINT8)

    def _back(self, whole: ir.Value, scale: float, zero: int) -> ir.Value:
        name = f"{whole.name}.back"
        parameters = self._parameters(name, scale, np.array(zero, np.uint8))
        return self._node("DequantizeLinear", [whole, *parameters], name, _FLOAT)

    def _constant(
        self, name: str, whole: NDArray[Any], scales: NDArray[np.float64], axis: int
    ) -> ir.Value:
        """Return a weight or bias of whole numbers, with a scale for each entry of an axis."""
        zeros = np.zeros(len(scales), whole.dtype)
        inputs = [self._initializer(f"{name}.whole", whole), *self._parameters(name, scales, zeros)]
        return self._node("DequantizeLinear", inputs, name, _FLOAT, {"axis": axis})

    def _parameters(self, name: str, scale: Any, zero: NDArray[Any]) -> list[ir.Value]:
        return [
            self._initializer(f"{name}.scale", np.asarray(scale, np.float32)),
            self._initializer(f"{name}.zero", zero),
        ]

    def _initializer(self, name: str, array: NDArray[Any]) -> ir.Value:
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self._graph.register_initializer(value)
        return value

    def _node(
        self,
        kind: str,
        inputs: Sequence[ir.Value],
        name: str,
        dtype: ir.DataType,
        attributes: dict[str, Any] | None = None,
    ) -> ir.Value:
        output = ir.val(name, dtype)
        self._new.append(ir.node(kind, inputs, attributes, outputs=[output], name=name))
        return output

    def _new_nodes(self) -> list[ir.Node]:
        new, self._new = self._new, []
        return new


def _parts(node: ir.Node) -> Sequence[ir.Value]:
    """Return the parts of the concatenation that a convolution reads, or () if it reads none."""
    data = node.inputs[0]
    join = data.producer() if data is not None else None
    if node.op_type != "Conv" or join is None or join.op_type != "Concat":
        return ()
    parts = [part for part in join.inputs if part is not None and part.shape is not None]
    known = len(parts) == len(join.inputs) and all(
        isinstance(part.shape[1], int)  # type: ignore[index]
        for part in parts
    )
    return parts if known and join.attributes["axis"].as_int() == 1 else ()


def _channel_axis(node: ir.Node, weight: NDArray[Any]) -> int:
    """Return the axis of a weight that the outputs lie along."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if "transB" in node.attributes and node.attributes["transB"].as_int() else 1
    return weight.ndim - 1


def _positive(scale: Any) -> NDArray[np.float64]:
    """Return a scale without zeros, to divide by; any will do for a value that is always 0."""
    return np.where(np.asarray(scale) > 0, np.maximum(scale, np.finfo(np.float32).tiny), 1.0)
