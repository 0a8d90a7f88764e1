"""Rules of operators that make a value from sizes and a few numbers."""

import math

import numpy as np

from difftool.preflight.shapes.operation import Made, Operation
from difftool.preflight.shapes.sized import FLOAT, INT64, REALS, Shape


def constant(op: Operation) -> Made:
    if (value := op.tensor("value")) is not None:
        return [(value.kind, value.dims)]
    kind, numbers = given_numbers(op)
    return [(kind, (len(numbers),) if isinstance(numbers, tuple) else ())]


def given_numbers(op: Operation) -> tuple[int, int | float | tuple[int | float, ...]]:
    """Return the type and the numbers of a Constant that is not given as a tensor."""
    for name, kind, types in (("int", INT64, int), ("float", FLOAT, (int, float))):
        found = op.node.attributes.get(f"value_{name}")
        if isinstance(found, types):
            return kind, found
        several = op.node.attributes.get(f"value_{name}s")
        if isinstance(several, tuple) and all(isinstance(item, types) for item in several):
            return kind, tuple(item for item in several if not isinstance(item, str))
    raise op.refused("is not a tensor of numbers")


def constant_of_shape(op: Operation) -> Made:
    value, wanted = op.tensor("value"), op.whole(0)
    op.require(min(wanted, default=0) >= 0, "a size is negative")
    return [(FLOAT if value is None else value.kind, tuple(wanted))]


def range_(op: Operation) -> Made:
    kind = op.input(0).kind
    op.require(op.input(1).kind == op.input(2).kind == kind, "its bounds are of several types")
    start, limit, delta = (op.numbers(index).reshape(-1) for index in range(3))
    op.require(start.size == limit.size == delta.size == 1, "its bounds are not single numbers")
    if kind in REALS:
        first, last, step = (float(bound[0]) for bound in (start, limit, delta))
        op.require(math.isfinite(first + last + step) and step != 0, "has no end")
        # Runtimes compute the count in float64 or in the input's own type. Both must agree.
        with np.errstate(all="ignore"):
            many, rounded = (last - first) / step, float((limit[0] - start[0]) / delta[0])
        op.require(math.isfinite(many) and math.isfinite(rounded), "has no end")
        op.require(math.ceil(many) == math.ceil(rounded), "ends by rounding")
        return [(kind, (max(0, math.ceil(many)),))]
    op.require(int(delta[0]) != 0, "takes steps of 0")
    count = -(-(int(limit[0]) - int(start[0])) // int(delta[0]))
    return [(kind, (max(0, count),))]


def one_hot(op: Operation) -> Made:
    indices, values = op.input(0), op.input(2)
    depth = op.numbers(1).reshape(-1)
    one = depth.size == 1 and bool(np.isfinite(depth[0])) and depth[0] >= 0
    op.require(one, "its depth is not a number of classes")
    op.require(values.shape == (2,), "its values are not two")
    axis = op.axis(op.integer("axis", -1), len(indices.shape) + 1)
    shape = (*indices.shape[:axis], int(depth[0]), *indices.shape[axis:])
    return [(values.kind, shape)]


def eye_like(op: Operation) -> Made:
    x = op.input(0)
    op.require(len(x.shape) == 2, "is not a matrix")
    return [(op.integer("dtype", x.kind), x.shape)]


def shape_part(op: Operation) -> Shape:
    """Return the sizes that Shape gives."""
    shape = op.input(0).shape
    if op.opset < 15:
        return shape
    return shape[slice(op.integer("start", 0), op.integer("end", len(shape)))]


def shape_(op: Operation) -> Made:
    return [(INT64, (len(shape_part(op)),))]


def size(op: Operation) -> Made:
    op.input(0)
    return [(INT64, ())]
