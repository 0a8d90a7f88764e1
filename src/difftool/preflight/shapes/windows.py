"""Rules of operators that move a window over an image: convolutions, pools, and resizing."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from difftool.preflight.shapes.operation import OPERATOR, Made, Operation
from difftool.preflight.shapes.sized import INT32, INT64, Shape

_EXACT: Final = 2.0**31  # larger sizes are refused anyway, and are not rounded
_SAME: Final = ("SAME_UPPER", "SAME_LOWER")


class Window(NamedTuple):
    """The movement of a window over the axes of an image; `reach` is its size with its gaps."""

    reach: list[int]
    strides: list[int]
    pads: list[int]  # on both sides together
    begins: list[int]  # on the first side
    auto: str


def window(op: Operation, kernel: Sequence[int]) -> Window:
    """Read a window of these sizes from an operator's attributes."""
    rank = len(kernel)
    ones = (1,) * rank
    strides = op.integers("strides", ones)
    dilations = op.integers("dilations", ones)
    pads = op.integers("pads", (0,) * (2 * rank))
    auto = op.text("auto_pad", "NOTSET")
    op.require(
        len(strides) == len(dilations) == rank
        and len(pads) == 2 * rank
        and min(strides) > 0 < min(dilations)
        and min(pads) >= 0 < min(kernel),
        "its strides, dilations, pads or kernel do not fit",
    )
    op.require(auto in ("NOTSET", "VALID", *_SAME), "pads in an unknown way")
    op.require(auto == "NOTSET" or not any(pads), "pads in two ways")
    # Some runtimes leave the gaps out of such a padding, so its size would depend on the runtime.
    op.require(auto not in _SAME or max(dilations) == 1, "pads to the same size with gaps")
    return Window(
        [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)],
        strides,
        [a + b for a, b in zip(pads[:rank], pads[rank:], strict=True)],
        pads[:rank],
        auto,
    )


def covered(op: Operation, image: Shape, moved: Window, *, ceil: bool = False) -> Shape:
    """Return how often a window fits into each axis of an image."""
    if moved.auto in _SAME:
        op.require(not ceil, "rounds up and pads to the same size")  # OpenVINO does both
        return tuple(-(-size // stride) for size, stride in zip(image, moved.strides, strict=True))
    found = []
    for size, reach, stride, pad, begin in zip(image, *moved[:4], strict=True):
        left = size + pad - reach
        op.require(left >= 0, "its window is larger than its image")
        count = (-(-left // stride) if ceil else left // stride) + 1
        # With ceil the last window may hang over the end. Runtimes differ if it lies beyond it.
        beyond = ceil and (count - 1) * stride >= size + begin
        op.require(not beyond, "has a window beyond its image")
        found.append(count)
    return tuple(found)


def kernel_sizes(op: Operation, weight: Shape) -> list[int]:
    """Return the sizes of a convolution's window."""
    kernel = op.integers("kernel_shape", weight[2:])
    op.require(tuple(kernel) == weight[2:], "its kernel is of another size than its weight")
    return kernel


def convolved(op: Operation, x: Shape, weight: Shape, bias: Shape | None) -> Shape:
    """Return the sizes of a convolution's result."""
    group = op.integer("group", 1)
    op.require(
        len(x) == len(weight) > 2
        and group > 0
        and x[1] == weight[1] * group
        and weight[0] % group == 0,
        "its image and its weight do not fit",
    )
    op.require(bias is None or bias == (weight[0],), "its bias does not fit")
    return (x[0], weight[0], *covered(op, x[2:], window(op, kernel_sizes(op, weight))))


def conv(op: Operation) -> Made:
    x, bias = op.input(0), op.optional(2)
    shape = convolved(op, x.shape, op.input(1).shape, None if bias is None else bias.shape)
    return [(x.kind, shape)]


def fused_conv(op: Operation) -> Made:
    """Size ONNX Runtime's FusedConv, which can add an image of its result's sizes."""
    made = conv(op)
    if (added := op.optional(3)) is not None:
        op.require(added.shape == made[0][1], "what it adds is of another size")
    return made


def conv_integer(op: Operation) -> Made:
    return [(INT32, convolved(op, op.input(0).shape, op.input(1).shape, None))]


def qlinear_conv(op: Operation) -> Made:
    x, weight, zero, bias = op.input(0), op.input(3), op.input(7), op.optional(8)
    op.require(op.input(6).shape in ((), (1,)), "its scale is more than one number")
    shape = convolved(op, x.shape, weight.shape, None if bias is None else bias.shape)
    return [(zero.kind, shape)]


def conv_transpose(op: Operation) -> Made:
    x, weight, bias, group = op.input(0), op.input(1).shape, op.optional(2), op.integer("group", 1)
    op.require(
        len(x.shape) == len(weight) > 2 and group > 0 and x.shape[1] == weight[0],
        "its image and its weight do not fit",
    )
    channels = weight[1] * group
    op.require(bias is None or bias.shape == (channels,), "its bias does not fit")
    rank = len(weight) - 2
    moved = window(op, kernel_sizes(op, weight))
    added = op.integers("output_padding", (0,) * rank)
    op.require(len(added) == rank and min(added) >= 0, "its output padding does not fit")
    wanted = op.integers("output_shape", ())
    if wanted:
        op.require(len(wanted) == rank and min(wanted) > 0, "its output sizes do not fit")
        image = tuple(wanted)
    elif moved.auto in _SAME:
        short = any(r + m < s for r, s, m in zip(*moved[:2], added, strict=True))
        op.require(not short, "pads to the same size, which its kernel does not fill")
        image = tuple(n * s for n, s in zip(x.shape[2:], moved.strides, strict=True))
    else:
        image = tuple(
            stride * (size - 1) + more + reach - pad
            for size, reach, stride, pad, more in zip(x.shape[2:], *moved[:3], added, strict=True)
        )
        op.require(min(image) >= 0, "pads off more than there is")
    return [(x.kind, (x.shape[0], channels, *image))]


def pool(op: Operation) -> Made:
    """Size an AveragePool or LpPool."""
    x, kernel = op.input(0), op.integers("kernel_shape")
    op.require(len(x.shape) == len(kernel) + 2 > 2, "its kernel does not fit its image")
    ceil = bool(op.integer("ceil_mode", 0))
    return [(x.kind, (*x.shape[:2], *covered(op, x.shape[2:], window(op, kernel), ceil=ceil)))]


def max_pool(op: Operation) -> Made:
    """Size a MaxPool, which also gives the index of each largest number."""
    made = pool(op)
    return [*made, (INT64, made[0][1])]


def global_pool(op: Operation) -> Made:
    x = op.input(0)
    op.require(len(x.shape) > 2, "is not an image")
    return [(x.kind, x.shape[:2] + (1,) * (len(x.shape) - 2))]


def resize(op: Operation) -> Made:
    x = op.input(0)
    if op.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise op.refused("crops", OPERATOR)
    rank = len(x.shape)
    axes = op.axes(op.integers("axes", range(rank)) if op.opset >= 18 else range(rank), rank)
    scales, sizes = op.optional(2), op.optional(3)
    shape = list(x.shape)
    if sizes is not None and sizes.shape != (0,):
        wanted = op.whole(3)
        op.require(len(wanted) == len(axes) and min(wanted, default=0) >= 0, "its sizes do not fit")
        # OpenVINO knows no other policy, and takes the sizes as they are.
        policy = op.text("keep_aspect_ratio_policy", "stretch") if op.opset >= 18 else "stretch"
        op.require(policy == "stretch", "keeps its aspect")
        for axis, size in zip(axes, wanted, strict=True):
            shape[axis] = size
        return [(x.kind, tuple(shape))]
    op.require(scales is not None and scales.shape == (len(axes),), "its scales do not fit")
    numbers = op.numbers(2)
    op.require(bool((numbers > 0).all() and np.isfinite(numbers).all()), "a scale is not above 0")
    for axis, scale in zip(axes, numbers, strict=True):
        # Runtimes round the product to float32. A size that is too large is so without rounding.
        exact = shape[axis] * float(scale)
        shape[axis] = math.floor(
            float(np.float32(shape[axis]) * np.float32(scale)) if exact < _EXACT else exact
        )
    return [(x.kind, tuple(shape))]


def grid_sample(op: Operation) -> Made:
    x, grid = op.input(0), op.input(1)
    op.require(
        len(x.shape) == len(grid.shape) > 2
        and x.shape[0] == grid.shape[0]
        and grid.shape[-1] == len(x.shape) - 2,
        "its grid does not fit",
    )
    return [(x.kind, x.shape[:2] + grid.shape[1:-1])]
