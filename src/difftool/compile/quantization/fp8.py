"""Make a quantized step graph with 8-bit floats, E4M3, instead of integers.

The quantized values and their ranges are those that `symmetric` finds for int8. A float has 3 bits
of mantissa everywhere in its range, so small values keep their precision.
"""

from typing import Final

import numpy as np
import onnx
from ml_dtypes import float8_e4m3fn
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from difftool.bundle import STEP, Bundle
from difftool.compile.quantization.symmetric import in_int8

_OPSET: Final = 19  # the first with 8-bit floats
_LARGEST: Final = 448.0  # of E4M3
_INTEGERS: Final = 127.0


def in_fp8(bundle: Bundle) -> onnx.ModelProto:
    """Return the step graph with its products in 8-bit floats; raise the errors of `in_int8`."""
    exact = {
        tensor.name: tensor
        for tensor in onnx.load_from_string(bundle.graph(STEP).data).graph.initializer
    }
    model = in_int8(bundle)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type.endswith("uantizeLinear")]
    scales = {name: _array(weights[name]) * (_INTEGERS / _LARGEST) for name in _inputs(pairs, 1)}
    for node in pairs:
        if (stored := weights.get(node.input[0])) is None:
            continue
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        weight = _array(exact[stored.name.removesuffix("_quantized")])
        scale = scales[node.input[1]]
        spread = scale.reshape([-1 if index == axis else 1 for index in range(weight.ndim)])
        stored.CopyFrom(_fp8(stored.name, weight / spread))
    for name in _inputs(pairs, 2):
        weights[name].CopyFrom(_fp8(name, np.zeros(list(weights[name].dims), np.float32)))
    for name, scale in scales.items():
        weights[name].CopyFrom(numpy_helper.from_array(scale.astype(np.float32), name))
    for value in model.graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.INT8:
            value.type.tensor_type.elem_type = TensorProto.FLOAT8E4M3FN
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = max(opset.version, _OPSET)
    onnx.checker.check_model(model, full_check=True)
    return model


def _inputs(nodes: list[onnx.NodeProto], index: int) -> set[str]:
    return {node.input[index] for node in nodes}


def _array(tensor: TensorProto) -> NDArray[np.float32]:
    return np.asarray(numpy_helper.to_array(tensor), np.float32)


def _fp8(name: str, values: NDArray[np.float32]) -> TensorProto:
    rounded = np.clip(values, -_LARGEST, _LARGEST).astype(float8_e4m3fn)
    return TensorProto(
        name=name,
        data_type=TensorProto.FLOAT8E4M3FN,
        dims=values.shape,
        raw_data=rounded.tobytes(),
    )
