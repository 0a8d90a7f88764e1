"""Translate PyTorch operators to the ONNX operators that run fastest.

All sizes except the batch's are static, so that the target shape of a Reshape is a constant; the
exporter's own translations compute shapes in the graph. Arguments have PyTorch's names.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike
from onnx import numpy_helper
from onnxscript import opset18 as op

Value = Any  # a value that onnxscript traces


def group_norm(
    input: Value,
    num_groups: int,
    weight: Value = None,
    bias: Value = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Value:
    """Return group norm of [N, C, ...]: instance norm of groups, then an affine map of channels.

    Instance norm subtracts the mean before it squares, so a large mean costs no digits. The affine
    map is a batch norm of mean 0 and variance 1: one pass over the data instead of two.
    """
    channels, *size = input.shape[1:]
    together = channels // num_groups * math.prod(size)
    grouped = op.Reshape(input, _ints([-1, num_groups, together]))
    one, zero = _floats(np.ones(num_groups)), _floats(np.zeros(num_groups))
    normed = op.InstanceNormalization(grouped, one, zero, epsilon=eps)
    normed = op.Reshape(normed, _ints([-1, channels, *size]))
    if weight is None:
        return normed
    mean, variance = _floats(np.zeros(channels)), _floats(np.ones(channels))
    return op.BatchNormalization(normed, weight, bias, mean, variance, epsilon=0.0)


def attention(
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """Return the attention of [N, heads, pixels, D] each, with the scale on the query."""
    if attn_mask is not None or dropout_p or is_causal or enable_gqa:
        raise NotImplementedError("attention with a mask, dropout or grouped queries")
    factor = float(query.shape[3]) ** -0.5 if scale is None else scale
    scores = op.MatMul(op.Mul(query, _floats(factor)), op.Transpose(key, perm=[0, 1, 3, 2]))
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def elu(self: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    """Return ELU as max(x, exp(min(x, 0)) - 1), since ONNX Runtime's Elu is not vectorized."""
    # With another slope max would not choose the right side.
    if (alpha, scale, input_scale) != (1.0, 1.0, 1.0):
        raise NotImplementedError("ELU with a slope other than 1")
    return op.Max(self, op.Sub(op.Exp(op.Min(self, _floats(0.0))), _floats(1.0)))


def softplus(self: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """Return softplus as max(x, 0) - log(sigmoid(|x|)), which needs no threshold.

    ONNX Runtime's Softplus is not vectorized. Its Sigmoid is one pass over memory; 1 + exp(-|x|)
    would be three.
    """
    if beta != 1.0:
        raise NotImplementedError("softplus with a beta other than 1")
    return op.Sub(op.Relu(self), op.Log(op.Sigmoid(op.Abs(self))))


def _ints(values: ArrayLike) -> Value:
    return _constant(values, np.int64)


def _floats(values: ArrayLike) -> Value:
    return _constant(values, np.float32)


def _constant(values: ArrayLike, dtype: DTypeLike) -> Value:
    return op.Constant(value=numpy_helper.from_array(np.asarray(values, dtype)))


TRANSLATIONS: Final[Mapping[Callable[..., Any], Callable[..., Any]]] = {
    torch.ops.aten.elu.default: elu,
    torch.ops.aten.group_norm.default: group_norm,
    torch.ops.aten.scaled_dot_product_attention.default: attention,
    torch.ops.aten.softplus.default: softplus,
}
