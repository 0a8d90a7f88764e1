"""The kernels of bfloat16 that ONNX Runtime's CUDA provider has."""

from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir

from difftool.bundle import STEP
from difftool.compile.precision import in_half

# What the provider computes in bfloat16, and what only moves numbers and so has every type:
# docs/BFloat16_Support.md in its sources, 2.2. Others of bfloat16 would not load.
CUDA_BFLOAT16: Final = """
Abs Add Attention AveragePool Cast Concat Conv Cos Div Erf Exp Expand Flatten Gather Gelu Gemm
Identity LayerNormalization MatMul Max Min Mul Neg Pow Relu Reshape Sigmoid Sin Slice Softmax
Split Sqrt Squeeze Sub Sum Tanh Transpose Unsqueeze Where
"""


def require_kernels_of_bfloat16(bundle: Path) -> None:
    """Demand that the provider has all that a bundle's step graph computes in bfloat16."""
    parsed = ir.from_proto(in_half(onnx.load(bundle / STEP), "bf16"))
    computed = {
        node.op_type
        for node in parsed.graph
        for value in node.outputs
        if value.dtype == ir.DataType.BFLOAT16
    }
    assert computed & {"Conv", "Gemm", "MatMul"}
    assert computed - set(CUDA_BFLOAT16.split()) == set()
