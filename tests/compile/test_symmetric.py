"""The step graph in int8 and in 8-bit floats for TensorRT, as ONNX Runtime on the CPU rounds it."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ml_dtypes import float8_e4m3fn
from onnx import TensorProto, numpy_helper

from difftool.bundle import STEP, Bundle, read_bundle
from difftool.compile.quantization.calibration import from_trajectory
from difftool.compile.quantization.fp8 import in_fp8
from difftool.compile.quantization.symmetric import in_int8


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def int8(tiny: Bundle) -> onnx.ModelProto:
    return in_int8(tiny)


@pytest.fixture(scope="module")
def fp8(tiny: Bundle) -> onnx.ModelProto:
    return in_fp8(tiny)


@pytest.mark.parametrize(("precision", "bound"), [("int8", 0.05), ("fp8", 0.1)])
def test_a_row_is_close_to_float32(
    precision: str, bound: float, tiny: Bundle, request: pytest.FixtureRequest
) -> None:
    exact = onnxruntime.InferenceSession(tiny.file(STEP))
    graph = request.getfixturevalue(precision)
    rough = onnxruntime.InferenceSession(graph.SerializeToString())
    for feed in from_trajectory(tiny, tiny.default_program(), samples=2).feeds[::7]:
        one, other = exact.run(None, feed), rough.run(None, feed)
        error = np.abs(one[0] - other[0]).max() / np.abs(one[0]).max()
        assert 0 < error < bound
        assert np.array_equal(one[2], other[2])


def test_every_zero_point_is_zero_and_in_int8(int8: onnx.ModelProto) -> None:
    weights = {tensor.name: tensor for tensor in int8.graph.initializer}
    pairs = [node for node in int8.graph.node if node.op_type.endswith("uantizeLinear")]
    assert len(pairs) > 10
    for node in pairs:
        zero = numpy_helper.to_array(weights[node.input[2]])
        assert zero.dtype == np.int8
        assert not zero.any()


def test_inner_layers_are_int8_and_the_outer_ones_are_not(int8: onnx.ModelProto) -> None:
    maker = {name: node for node in int8.graph.node for name in node.output}
    convolutions = [node for node in int8.graph.node if node.op_type == "Conv"]
    inputs = [
        [maker[name].op_type if name in maker else "weight" for name in node.input[:2]]
        for node in convolutions
    ]
    pair = ["DequantizeLinear", "DequantizeLinear"]
    assert inputs[1:-1] == [pair] * (len(convolutions) - 2)
    assert "DequantizeLinear" not in inputs[0] + inputs[-1]
    stored = {tensor.name: tensor for tensor in int8.graph.initializer}
    inner = maker[convolutions[1].input[1]]
    assert stored[inner.input[0]].data_type == onnx.TensorProto.INT8
    # One scale for each output channel.
    assert list(stored[inner.input[1]].dims) == [stored[inner.input[0]].dims[0]]


def test_weights_are_the_exact_ones_rounded_once(tiny: Bundle, fp8: onnx.ModelProto) -> None:
    """Each is off by half a unit of 3 bits at most, or by half the least number there is."""
    exact = {tensor.name: tensor for tensor in onnx.load(tiny.file(STEP)).graph.initializer}
    stored = {tensor.name: tensor for tensor in fp8.graph.initializer}
    seen = 0
    for node in fp8.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in stored:
            continue
        tensor = stored[node.input[0]]
        assert tensor.data_type == TensorProto.FLOAT8E4M3FN
        values = np.frombuffer(tensor.raw_data, float8_e4m3fn).astype(np.float32)
        scale = numpy_helper.to_array(stored[node.input[1]]).reshape(-1, 1)
        wanted = numpy_helper.to_array(exact[tensor.name.removesuffix("_quantized")])
        wanted = wanted.reshape(len(scale), -1)
        error = np.abs(values.reshape(wanted.shape) * scale - wanted)
        assert (error <= np.maximum(np.abs(wanted) * 2.0**-4, scale * 2.0**-10) * 1.001).all()
        assert np.abs(values).max() == 448  # the range is used to its end
        seen += 1
    assert seen > 2


def test_nothing_is_left_of_the_integers(fp8: onnx.ModelProto) -> None:
    kinds = {value.type.tensor_type.elem_type for value in fp8.graph.value_info}
    kinds |= {tensor.data_type for tensor in fp8.graph.initializer}
    assert TensorProto.INT8 not in kinds
    assert TensorProto.FLOAT8E4M3FN in kinds
