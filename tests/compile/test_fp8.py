"""The step graph in 8-bit floats, as ONNX Runtime on the CPU rounds them."""

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


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def floats(tiny: Bundle) -> onnx.ModelProto:
    return in_fp8(tiny)


def test_a_row_is_close_to_float32(tiny: Bundle, floats: onnx.ModelProto) -> None:
    exact = onnxruntime.InferenceSession(tiny.file(STEP))
    rough = onnxruntime.InferenceSession(floats.SerializeToString())
    for feed in from_trajectory(tiny, tiny.default_program(), samples=2).feeds[::7]:
        one, other = exact.run(None, feed), rough.run(None, feed)
        error = np.abs(one[0] - other[0]).max() / np.abs(one[0]).max()
        assert 0 < error < 0.1
        assert np.array_equal(one[2], other[2])


def test_weights_are_the_exact_ones_rounded_once(tiny: Bundle, floats: onnx.ModelProto) -> None:
    """Each is off by half a unit of 3 bits at most, or by half the least number there is."""
    exact = {tensor.name: tensor for tensor in onnx.load(tiny.file(STEP)).graph.initializer}
    stored = {tensor.name: tensor for tensor in floats.graph.initializer}
    seen = 0
    for node in floats.graph.node:
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


def test_nothing_is_left_of_the_integers(floats: onnx.ModelProto) -> None:
    kinds = {value.type.tensor_type.elem_type for value in floats.graph.value_info}
    kinds |= {tensor.data_type for tensor in floats.graph.initializer}
    assert TensorProto.INT8 not in kinds
    assert TensorProto.FLOAT8E4M3FN in kinds
