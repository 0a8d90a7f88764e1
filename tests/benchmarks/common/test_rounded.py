"""A graph in float32 that rounds as one of 16 bits does."""

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from common.rounded import rounded

TEXT = """
<ir_version: 10, opset_import: ["": 22]> g (float[N] x) => (float[N] y, float[N] product)
<float wide = {{3.140625}}>
{{ narrow = Cast<to = {number}>(x)
  factor = Cast<to = {number}>(wide)
  product16 = Mul(narrow, factor)
  sum16 = Add(product16, narrow)
  y = Cast<to = 1>(sum16)
  product = Cast<to = 1>(product16) }}
"""


@pytest.mark.parametrize(
    ("number", "half"), [(10, np.float16), (16, ml_dtypes.bfloat16)], ids=["fp16", "bf16"]
)
def test_every_value_is_rounded_where_it_is_computed(number: int, half: type) -> None:
    model = onnx.parser.parse_model(TEXT.format(number=number))
    model = onnx.shape_inference.infer_shapes(model)
    x = np.linspace(-9, 9, 101, dtype=np.float32)
    narrow = x.astype(half)
    product = narrow * half(3.140625)
    expected = [values.astype(np.float32) for values in (product + narrow, product)]
    session = onnxruntime.InferenceSession(
        rounded(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for found, exact in zip(session.run(None, {"x": x}), expected, strict=True):
        assert np.array_equal(found, exact)
        assert not np.array_equal(found, x * 3.140625)
