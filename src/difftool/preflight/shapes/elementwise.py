"""Rules of operators that keep their input's sizes: arithmetic, comparisons, norms, reductions."""

from typing import Final

from difftool.preflight.shapes.operation import Made, Operation
from difftool.preflight.shapes.sized import BOOL, FLOAT, INT64, UINT8, Shape


def same(op: Operation) -> Made:
    """Return the first input's type and sizes."""
    x = op.input(0)
    return [(x.kind, x.shape)]


def truth(op: Operation) -> Made:
    """Return truth values in the first input's sizes."""
    return [(BOOL, op.input(0).shape)]


def binary(op: Operation) -> Made:
    """Broadcast two inputs; the result has the first one's type."""
    a, b = op.input(0), op.input(1)
    return [(a.kind, op.broadcast(a.shape, b.shape))]


def comparison(op: Operation) -> Made:
    """Broadcast two inputs to truth values."""
    return [(BOOL, op.broadcast(op.input(0).shape, op.input(1).shape))]


def variadic(op: Operation) -> Made:
    """Broadcast any number of inputs."""
    found = op.all_inputs()
    return [(found[0].kind, op.broadcast(*(value.shape for value in found)))]


def where(op: Operation) -> Made:
    condition, x, y = op.input(0), op.input(1), op.input(2)
    return [(x.kind, op.broadcast(condition.shape, x.shape, y.shape))]


def clip(op: Operation) -> Made:
    _require_scalars(op, "bound")
    return same(op)


def slope(op: Operation) -> Made:
    """Size a PRelu, whose slopes are broadcast to its input."""
    op.require_spread(op.input(1).shape, op.input(0).shape, "slope")
    return same(op)


def gated(op: Operation) -> Made:
    """Size a SwiGLU, whose inputs have the same sizes."""
    op.require(op.input(0).shape == op.input(1).shape, "its inputs differ")
    return same(op)


def biased(op: Operation) -> Made:
    """Size an activation that may first add a bias."""
    if (bias := op.optional(1)) is not None:
        op.require_spread(bias.shape, op.input(0).shape, "bias")
    return same(op)


def cast(op: Operation) -> Made:
    return [(op.integer("to"), op.input(0).shape)]


def cast_like(op: Operation) -> Made:
    return [(op.input(1).kind, op.input(0).shape)]


def dropout(op: Operation) -> Made:
    x = op.input(0)
    _require_scalars(op, "setting")
    return [(x.kind, x.shape), (BOOL, x.shape)]


def triangle(op: Operation) -> Made:
    op.require(len(op.input(0).shape) >= 2, "has no matrices")
    return same(op)


def running(op: Operation) -> Made:
    """Size a CumSum or CumProd, whose axis is an input of one number."""
    op.require(op.input(1).shape in ((), (1,)), "its axis is more than one number")
    return same(op)


def channel_norm(op: Operation) -> Made:
    """Size a norm with a scale and a bias for every channel."""
    shape = op.input(0).shape
    op.require(len(shape) >= 2, "has no channels")
    _require_affine(op, shape[1])
    return same(op)


def group_norm(op: Operation) -> Made:
    shape, groups = op.input(0).shape, op.integer("num_groups")
    op.require(len(shape) >= 2, "has no channels")
    op.require(groups > 0 and shape[1] % groups == 0, f"has no {groups} groups")
    # Before opset 21 there was one scale and bias for each group, not for each channel.
    _require_affine(op, shape[1] if op.opset >= 21 else groups)
    return same(op)


def batch_norm(op: Operation) -> Made:
    x = op.input(0)
    channels = (x.shape[1] if len(x.shape) > 1 else 1,)
    for index in range(1, 5):
        op.require(op.input(index).shape == channels, "a statistic does not fit")
    kept = op.input(3).kind
    return [(x.kind, x.shape), (kept, channels), (kept, channels)]


def layer_norm(op: Operation) -> Made:
    """Size a LayerNormalization, with its mean and inverse deviation over the axes from `axis`."""
    x = op.input(0)
    axis = op.axis(op.integer("axis", -1), len(x.shape))
    op.require_spread(op.input(1).shape, x.shape, "scale")
    if (bias := op.optional(2)) is not None:
        op.require_spread(bias.shape, x.shape, "bias")
    left = x.shape[:axis] + (1,) * (len(x.shape) - axis)
    kind = op.integer("stash_type", FLOAT)
    return [(x.kind, x.shape), (kind, left), (kind, left)]


def rms_norm(op: Operation) -> Made:
    op.require_spread(op.input(1).shape, op.input(0).shape, "scale")
    return same(op)


# OpenVINO ignores the attribute axes of these.
_MISREAD: Final = ("ReduceL1", "ReduceLogSum", "ReduceLogSumExp")


def reduced_axes(op: Operation) -> list[int] | None:
    """Return the axes over which a reduction goes; None if it leaves its input as it is."""
    rank = len(op.input(0).shape)
    if op.opset < 18 and op.node.operator != "ReduceSum":  # axes were an attribute then
        axes = op.integers("axes", ())
        op.require(not axes or op.node.operator not in _MISREAD, "names axes as of old")
        return op.axes(axes, rank) or list(range(rank))
    axes = op.whole(1) if op.optional(1) is not None else []
    if not axes and op.integer("noop_with_empty_axes", 0):
        return None
    return op.axes(axes, rank) or list(range(rank))


def reduction(op: Operation) -> Made:
    x, axes = op.input(0), reduced_axes(op)
    return same(op) if axes is None else [(x.kind, _without(op, x.shape, axes))]


def arg_reduction(op: Operation) -> Made:
    """Size an ArgMax or ArgMin."""
    x = op.input(0)
    axis = op.axis(op.integer("axis", 0), len(x.shape))
    return [(INT64, _without(op, x.shape, [axis]))]


def dynamic_quantize(op: Operation) -> Made:
    """Size a DynamicQuantizeLinear, which also gives the scale and zero point that it found."""
    return [(UINT8, op.input(0).shape), (FLOAT, ()), (UINT8, ())]


def quantize(op: Operation) -> Made:
    """Size a QuantizeLinear; its type is the zero point's, or named, or else uint8."""
    x, zero = op.input(0), op.optional(2)
    _require_scales(op)
    named = op.integer("output_dtype", 0)
    return [(zero.kind if zero is not None else named or UINT8, x.shape)]


def dequantize(op: Operation) -> Made:
    """Size a DequantizeLinear; its type is named, or else the scale's."""
    x, scale = op.input(0), op.input(1)
    _require_scales(op)
    return [(op.integer("output_dtype", 0) or scale.kind, x.shape)]


def _require_scalars(op: Operation, what: str) -> None:
    """Require that the second and third inputs, if they are there, are one number each."""
    for index in (1, 2):
        if (value := op.optional(index)) is not None:
            op.require(value.shape in ((), (1,)), f"a {what} is more than one number")


def _require_affine(op: Operation, size: int) -> None:
    for index in (1, 2):
        op.require(op.input(index).shape == (size,), "a scale or bias does not fit")


def _require_scales(op: Operation) -> None:
    """Require scales, and zero points if any: one, one for each entry of an axis, or blocks."""
    x, scale, zero = op.input(0), op.input(1), op.optional(2)
    if zero is not None:
        op.require(zero.shape == scale.shape, "its zero points are not those of its scales")
    if scale.shape in ((), (1,)):
        return
    axis, block = op.axis(op.integer("axis", 1), len(x.shape)), op.integer("block_size", 0)
    if not block:
        op.require(scale.shape == (x.shape[axis],), "its scales do not fit")
        return
    op.require(block > 0, "its blocks have no size")
    blocks = -(-x.shape[axis] // block)
    wanted = (*x.shape[:axis], blocks, *x.shape[axis + 1 :])
    op.require(scale.shape == wanted, "its scales do not fit")


def _without(op: Operation, shape: Shape, axes: list[int]) -> Shape:
    if op.integer("keepdims", 1):
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)
