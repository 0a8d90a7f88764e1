"""Rules of operators that keep their input's sizes: arithmetic, comparisons, norms, reductions."""

from difftool.preflight.shapes.operation import Made, Operation
from difftool.preflight.shapes.sized import BOOL, FLOAT, INT64, UINT8, Shape


def same(op: Operation) -> Made:
    """One output like the first input."""
    x = op.input(0)
    return [(x.kind, x.shape)]


def truth(op: Operation) -> Made:
    """Truth values in the first input's sizes."""
    return [(BOOL, op.input(0).shape)]


def binary(op: Operation) -> Made:
    """Two inputs, spread to each other; of the first one's type."""
    a, b = op.input(0), op.input(1)
    return [(a.kind, op.broadcast(a.shape, b.shape))]


def comparison(op: Operation) -> Made:
    """Truth values of two inputs, spread to each other."""
    return [(BOOL, op.broadcast(op.input(0).shape, op.input(1).shape))]


def variadic(op: Operation) -> Made:
    """Any number of inputs, spread to each other."""
    found = op.all_inputs()
    return [(found[0].kind, op.broadcast(*(value.shape for value in found)))]


def where(op: Operation) -> Made:
    condition, x, y = op.input(0), op.input(1), op.input(2)
    return [(x.kind, op.broadcast(condition.shape, x.shape, y.shape))]


def clip(op: Operation) -> Made:
    """The bounds are one number each."""
    x = op.input(0)
    for index in (1, 2):
        if (bound := op.optional(index)) is not None:
            op.require(bound.shape in ((), (1,)), "a bound is more than one number")
    return [(x.kind, x.shape)]


def slope(op: Operation) -> Made:
    """PRelu, whose slopes are spread to its input."""
    x = op.input(0)
    op.require_spread(op.input(1).shape, x.shape, "slope")
    return [(x.kind, x.shape)]


def gated(op: Operation) -> Made:
    """SwiGLU, whose inputs have the same sizes."""
    a, b = op.input(0), op.input(1)
    op.require(a.shape == b.shape, "its inputs differ")
    return [(a.kind, a.shape)]


def biased(op: Operation) -> Made:
    """An activation that adds a bias first, which may be left out."""
    x, bias = op.input(0), op.optional(1)
    if bias is not None:
        op.require_spread(bias.shape, x.shape, "bias")
    return [(x.kind, x.shape)]


def cast(op: Operation) -> Made:
    return [(op.integer("to"), op.input(0).shape)]


def cast_like(op: Operation) -> Made:
    return [(op.input(1).kind, op.input(0).shape)]


def dropout(op: Operation) -> Made:
    x = op.input(0)
    for index in (1, 2):
        if (setting := op.optional(index)) is not None:
            op.require(setting.shape in ((), (1,)), "a setting is more than one number")
    return [(x.kind, x.shape), (BOOL, x.shape)]


def triangle(op: Operation) -> Made:
    x = op.input(0)
    op.require(len(x.shape) >= 2, "has no matrices")
    return [(x.kind, x.shape)]


def running(op: Operation) -> Made:
    """CumSum and its like, whose axis is an input of one number."""
    x, axis = op.input(0), op.input(1)
    op.require(axis.shape in ((), (1,)), "its axis is more than one number")
    return [(x.kind, x.shape)]


def channel_norm(op: Operation) -> Made:
    """A norm with a scale and a bias, one of each for every channel."""
    x = op.input(0)
    op.require(len(x.shape) >= 2, "has no channels")
    for index in (1, 2):
        op.require(op.input(index).shape == (x.shape[1],), "a scale or bias does not fit")
    return [(x.kind, x.shape)]


def group_norm(op: Operation) -> Made:
    """Before opset 21 scale and bias are one for each group, not for each channel."""
    x, groups = op.input(0), op.integer("num_groups")
    op.require(len(x.shape) >= 2, "has no channels")
    channels = x.shape[1]
    op.require(groups > 0 and channels % groups == 0, f"has no {groups} groups")
    wanted = (channels,) if op.opset >= 21 else (groups,)
    for index in (1, 2):
        op.require(op.input(index).shape == wanted, "a scale or bias does not fit")
    return [(x.kind, x.shape)]


def batch_norm(op: Operation) -> Made:
    x = op.input(0)
    channels = (x.shape[1] if len(x.shape) > 1 else 1,)
    for index in range(1, 5):
        op.require(op.input(index).shape == channels, "a statistic does not fit")
    kept = op.input(3).kind
    return [(x.kind, x.shape), (kept, channels), (kept, channels)]


def layer_norm(op: Operation) -> Made:
    """Also the mean and the inverse deviation, over the axes from `axis` on."""
    x = op.input(0)
    axis = op.axis(op.integer("axis", -1), len(x.shape))
    op.require_spread(op.input(1).shape, x.shape, "scale")
    if (bias := op.optional(2)) is not None:
        op.require_spread(bias.shape, x.shape, "bias")
    left = x.shape[:axis] + (1,) * (len(x.shape) - axis)
    kind = op.integer("stash_type", FLOAT)
    return [(x.kind, x.shape), (kind, left), (kind, left)]


def rms_norm(op: Operation) -> Made:
    x = op.input(0)
    op.require_spread(op.input(1).shape, x.shape, "scale")
    return [(x.kind, x.shape)]


def reduced_axes(op: Operation) -> list[int] | None:
    """The axes that a reduction sums over; None if it does nothing at all."""
    rank = len(op.input(0).shape)
    if op.opset < 18 and op.node.operator != "ReduceSum":
        axes = op.integers("axes", ())
        return op.axes(axes, rank) or list(range(rank))
    axes = op.whole(1) if op.optional(1) is not None else []
    if not axes and op.integer("noop_with_empty_axes", 0):
        return None
    return op.axes(axes, rank) or list(range(rank))


def reduction(op: Operation) -> Made:
    x, axes = op.input(0), reduced_axes(op)
    if axes is None:
        return [(x.kind, x.shape)]
    return [(x.kind, _without(op, x.shape, axes))]


def arg_reduction(op: Operation) -> Made:
    """ArgMax and ArgMin."""
    x = op.input(0)
    axis = op.axis(op.integer("axis", 0), len(x.shape))
    return [(INT64, _without(op, x.shape, [axis]))]


def dynamic_quantize(op: Operation) -> Made:
    """DynamicQuantizeLinear: also the scale and the zero point that it found."""
    return [(UINT8, op.input(0).shape), (FLOAT, ()), (UINT8, ())]


def quantize(op: Operation) -> Made:
    """QuantizeLinear: the type is the zero point's, or named; uint8 otherwise."""
    x, zero = op.input(0), op.optional(2)
    _require_scales(op)
    named = op.integer("output_dtype", 0)
    return [(zero.kind if zero is not None else named or UINT8, x.shape)]


def dequantize(op: Operation) -> Made:
    """DequantizeLinear: the type is the scale's, or named."""
    x, scale = op.input(0), op.input(1)
    _require_scales(op)
    return [(op.integer("output_dtype", 0) or scale.kind, x.shape)]


def _require_scales(op: Operation) -> None:
    """Scales, and zero points if there are any: one, one for each entry of an axis, or blocks."""
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
