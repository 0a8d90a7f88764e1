"""The int8 step graph: symmetric, calibrated on the model's own run, and close to float32."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from difftool.bundle import Bundle, read_bundle
from difftool.compile.quantization.calibration import from_trajectory
from difftool.compile.quantization.symmetric import in_int8
from difftool.errors import UsageError


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def quantized(tiny: Bundle) -> onnx.ModelProto:
    return in_int8(tiny)


def test_every_zero_point_is_zero_and_in_int8(quantized: onnx.ModelProto) -> None:
    weights = {tensor.name: tensor for tensor in quantized.graph.initializer}
    pairs = [node for node in quantized.graph.node if node.op_type.endswith("quantizeLinear")]
    pairs += [node for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert len(pairs) > 10
    for node in pairs:
        zero = numpy_helper.to_array(weights[node.input[2]])
        assert zero.dtype == np.int8
        assert not zero.any()


def test_inner_layers_are_int8_and_the_outer_ones_are_not(quantized: onnx.ModelProto) -> None:
    maker = {name: node for node in quantized.graph.node for name in node.output}
    convolutions = [node for node in quantized.graph.node if node.op_type == "Conv"]
    inputs = [
        [maker[name].op_type if name in maker else "weight" for name in node.input[:2]]
        for node in convolutions
    ]
    pair = ["DequantizeLinear", "DequantizeLinear"]
    assert inputs[1:-1] == [pair] * (len(convolutions) - 2)
    assert "DequantizeLinear" not in inputs[0] + inputs[-1]
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    inner = maker[convolutions[1].input[1]]
    assert stored[inner.input[0]].data_type == onnx.TensorProto.INT8
    # One scale for each output channel.
    assert list(stored[inner.input[1]].dims) == [stored[inner.input[0]].dims[0]]


def test_a_row_is_close_to_float32(tiny: Bundle, quantized: onnx.ModelProto) -> None:
    exact = onnxruntime.InferenceSession(tiny.file("step.onnx"))
    rough = onnxruntime.InferenceSession(quantized.SerializeToString())
    for feed in from_trajectory(tiny, tiny.default_program(), samples=2).feeds[::7]:
        one, other = exact.run(None, feed), rough.run(None, feed)
        error = np.abs(one[0] - other[0]).max() / np.abs(one[0]).max()
        assert 0 < error < 0.05
        assert np.array_equal(one[2], other[2])


def test_what_has_no_inner_layer_is_refused(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("difftool.compile.quantization.symmetric._inner_products", lambda model: [])
    with pytest.raises(UsageError, match="too small for int8"):
        in_int8(tiny)
