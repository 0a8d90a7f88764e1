"""The table of operators, with their rules. An operator that is not here is refused."""

from collections.abc import Callable, Mapping
from typing import Final

from difftool.preflight.shapes import arrangement as move
from difftool.preflight.shapes import creation as make
from difftool.preflight.shapes import elementwise as each
from difftool.preflight.shapes import products, windows
from difftool.preflight.shapes.operation import Made, Operation

Rule = Callable[[Operation], Made]

OLDEST: Final = 13  # opsets; in older ones axes are attributes
NEWEST: Final = 28

# Operators whose output is like their first input.
SAME: Final = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Ceil", "Celu",
    "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Hardmax",
    "Identity", "LRN", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization",
    "MeanVarianceNormalization", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu",
    "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt",
    "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
_BINARY: Final = "Add BitShift BitwiseAnd BitwiseOr BitwiseXor Div Mod Mul Pow Sub"
_COMPARISONS: Final = "And Equal Greater GreaterOrEqual Less LessOrEqual Or Xor"
_VARIADIC: Final = "Max Mean Min Sum"
REDUCTIONS: Final = (
    "L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare",
)  # fmt: skip

RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(SAME, each.same),
    **dict.fromkeys(_BINARY.split(), each.binary),
    **dict.fromkeys(_COMPARISONS.split(), each.comparison),
    **dict.fromkeys(_VARIADIC.split(), each.variadic),
    **{f"Reduce{name}": each.reduction for name in REDUCTIONS},
    **dict.fromkeys(["ArgMax", "ArgMin"], each.arg_reduction),
    "Attention": products.attention,
    **dict.fromkeys(["AveragePool", "LpPool"], windows.pool),
    "BatchNormalization": each.batch_norm,
    "Cast": each.cast,
    "CastLike": each.cast_like,
    "Clip": each.clip,
    "Concat": move.concat,
    "Constant": make.constant,
    "ConstantOfShape": make.constant_of_shape,
    "Conv": windows.conv,
    "ConvInteger": windows.conv_integer,
    "ConvTranspose": windows.conv_transpose,
    **dict.fromkeys(["CumProd", "CumSum"], each.running),
    "DepthToSpace": move.depth_to_space,
    "DequantizeLinear": each.dequantize,
    "Dropout": each.dropout,
    "DynamicQuantizeLinear": each.dynamic_quantize,
    "Einsum": products.einsum,
    "Expand": move.expand,
    "EyeLike": make.eye_like,
    "Flatten": move.flatten,
    "Gather": move.gather,
    "GatherElements": move.gather_elements,
    "GatherND": move.gather_nd,
    "Gemm": products.gemm,
    **{f"Global{name}Pool": windows.global_pool for name in ("Average", "Lp", "Max")},
    "GridSample": windows.grid_sample,
    "GroupNormalization": each.group_norm,
    "InstanceNormalization": each.channel_norm,
    **dict.fromkeys(["IsInf", "IsNaN"], each.truth),
    "LayerNormalization": each.layer_norm,
    "MatMul": products.matmul,
    "MatMulInteger": products.matmul_integer,
    "MaxPool": windows.max_pool,
    "NonZero": move.non_zero,
    "OneHot": make.one_hot,
    "PRelu": each.slope,
    "Pad": move.pad,
    "QLinearConv": windows.qlinear_conv,
    "QLinearMatMul": products.qlinear_matmul,
    "QuantizeLinear": each.quantize,
    "RMSNormalization": each.rms_norm,
    "Range": make.range_,
    "Reshape": move.reshape,
    "Resize": windows.resize,
    "ScatterElements": move.scatter_elements,
    "ScatterND": move.scatter_nd,
    "Shape": make.shape_,
    "Size": make.size,
    "Slice": move.slice_,
    "SpaceToDepth": move.space_to_depth,
    "Split": move.split,
    "Squeeze": move.squeeze,
    "SwiGLU": each.gated,
    "Tile": move.tile,
    "TopK": move.top_k,
    "Transpose": move.transpose,
    "Trilu": each.triangle,
    "Unsqueeze": move.unsqueeze,
    "Where": each.where,
}

# ONNX Runtime's own operators, which its optimizer and its quantizers write.
CONTRIBUTED: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(["BiasGelu", "FastGelu"], each.biased),
    **dict.fromkeys(["Gelu", "QuickGelu"], each.same),
    "DequantizeLinear": each.dequantize,
    "DynamicQuantizeMatMul": products.dynamic_quantize_matmul,
    "FusedConv": windows.fused_conv,
    "FusedGemm": products.gemm,
    "FusedMatMul": products.fused_matmul,
    "MatMulIntegerToFloat": products.matmul_integer_to_float,
    "QuantizeLinear": each.quantize,
}

_DOMAINS: Final[Mapping[str, Mapping[str, Rule]]] = {
    "": RULES,
    "ai.onnx": RULES,
    "com.microsoft": CONTRIBUTED,
}


def find_rule(domain: str, operator: str) -> Rule | None:
    """Return the rule of an operator, or None if the operator is refused."""
    return _DOMAINS.get(domain, {}).get(operator)
