"""The numbers of small values, which make up shapes, computed as the runtimes compute them.

All whole numbers are int64 here. A result counts as unknown if its type cannot hold it, because
runtimes differ then. The same goes for results of arithmetic that have more than 53 bits, and for a
number that is not finite and is cast to a whole one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from difftool.preflight.shapes.arrangement import read_slices
from difftool.preflight.shapes.creation import given_numbers, shape_part
from difftool.preflight.shapes.elementwise import reduced_axes
from difftool.preflight.shapes.operation import Made, Operation
from difftool.preflight.shapes.sized import RANGES, REALS, Numbers, Shape, is_small

# Compute outputs of these shapes from known numbers; return None if the result is not known.
Evaluation = Callable[[Operation, list[Any], list[Shape]], Sequence[Numbers] | None]

OF_SIZES: Final = ("Shape", "Size")  # operators that need only their inputs' sizes
_LARGEST: Final = 2.0**53  # runtimes compute some whole numbers in float64, which rounds from here


def evaluate(op: Operation, made: Made) -> list[Numbers | None]:
    """Return the numbers of each output, or None if they are too many or not known."""
    unknown: list[Numbers | None] = [None] * len(made)
    compute = _VALUES.get(op.node.operator) if op.node.domain in ("", "ai.onnx") else None
    followed = op.node.operator in OF_SIZES or all(
        value is None or value.numbers is not None for value in op.inputs
    )
    if compute is None or not followed or not all(is_small(*one) for one in made):
        return unknown
    given = [None if value is None else value.numbers for value in op.inputs]
    with np.errstate(all="ignore"):
        try:
            found = compute(op, given, [shape for _, shape in made])
        except (IndexError, OverflowError, ValueError):
            return unknown
    if found is None:
        return unknown
    return [_held(numbers, *made[index]) for index, numbers in enumerate(found)]


def _held(numbers: Numbers, kind: int, shape: Shape) -> Numbers | None:
    """Return the numbers in their own type, or None if it cannot hold them."""
    if numbers.shape != shape or _is_whole(numbers) == (kind in REALS):
        return None
    if kind in REALS:
        return numbers.astype(REALS[kind], copy=False)
    low, high = RANGES[kind]
    fits = numbers.size == 0 or (numbers.min() >= low and numbers.max() <= high)
    return numbers if fits else None


def _is_whole(array: Numbers) -> bool:
    return array.dtype == np.int64


def _is_exact(array: Numbers) -> bool:
    return bool((np.abs(array.astype(np.float64)) < _LARGEST).all())


def _arithmetic(function: Callable[..., Numbers]) -> Evaluation:
    """Evaluate a function of all inputs, but of whole numbers only if none can overflow."""

    def compute(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers] | None:
        if all(map(_is_whole, given)):
            rough = function(*(array.astype(np.float64) for array in given))
            if not _is_exact(rough):
                return None
        return [np.asarray(function(*given))]

    return compute


def _reals(function: Callable[[Numbers], Numbers]) -> Evaluation:
    """Evaluate a function of one real input."""
    return lambda op, given, shapes: None if _is_whole(given[0]) else [function(given[0])]


def _truth(function: Callable[..., Numbers]) -> Evaluation:
    return lambda op, given, shapes: [np.asarray(function(*given)).astype(np.int64)]


def _together(function: Callable[[Numbers, Numbers], Numbers]) -> Callable[..., Numbers]:
    """Make a function of any number of arrays from one of two."""

    def fold(*arrays: Numbers) -> Numbers:
        result = arrays[0]
        for array in arrays[1:]:
            result = function(result, array)
        return result

    return fold


def _reshaped(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers]:
    return [given[0].reshape(shapes[0])]


def _div(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers] | None:
    a, b = given
    if not _is_whole(a):
        return [a / b]
    if not b.all() or not _is_exact(a) or not _is_exact(b):
        return None
    # ONNX Runtime rounds a negative quotient up, OpenVINO down.
    return [a // b] if ((a % b == 0) | ((a < 0) == (b < 0))).all() else None


def _mod(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers] | None:
    a, b = given
    if not _is_whole(a) or not b.all() or not _is_exact(a) or not _is_exact(b):
        return None
    return [np.fmod(a, b) if op.integer("fmod", 0) else np.mod(a, b)]


def _pow(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers] | None:
    a, b = given
    if not _is_whole(a) or not _is_whole(b) or (b < 0).any() or not _is_exact(b):
        return None
    rough = np.power(a.astype(np.float64), b.astype(np.float64))
    return [np.power(a, b)] if _is_exact(rough) else None


def _cast(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers] | None:
    x, kind = given[0], op.integer("to")
    if kind in REALS:
        return [x.astype(REALS[kind])]
    if kind == 9:
        return [(x != 0).astype(np.int64)]
    if _is_whole(x):
        return [x]
    return [np.trunc(x).astype(np.int64)] if _is_exact(x) else None


def _clip(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers]:
    result = given[0]
    if len(given) > 1 and given[1] is not None:
        result = np.maximum(result, given[1])
    if len(given) > 2 and given[2] is not None:
        result = np.minimum(result, given[2])
    return [result]


def _slice(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers]:
    result = given[0]
    for axis, taken in read_slices(op):
        result = np.take(result, np.array(taken, np.int64), axis)
    return [result]


def _split(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers]:
    axis = op.integer("axis", 0)
    ends = np.cumsum([shape[axis] for shape in shapes])[:-1]
    return list(np.split(given[0], [int(end) for end in ends], axis))


def _scatter_nd(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers] | None:
    x, indices, updates = given
    if op.text("reduction", "none") != "none":
        return None
    result = x.copy()
    result[tuple(np.moveaxis(indices, -1, 0))] = updates
    return [result]


def _reduction(function: Callable[..., Numbers]) -> Evaluation:
    def compute(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers] | None:
        x, axes = given[0], reduced_axes(op)
        if not _is_whole(x) or x.size == 0:
            return None
        if axes is None:
            return [x]
        over = tuple(axes)
        if not _is_exact(function(np.abs(x.astype(np.float64)), axis=over)):
            return None
        return [np.asarray(function(x, axis=over)).reshape(shapes[0])]

    return compute


def _constant(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers] | None:
    if (value := op.tensor("value")) is not None:
        return None if value.numbers is None else [value.numbers.reshape(shapes[0])]
    kind, numbers = given_numbers(op)
    return [np.array(numbers, REALS.get(kind, np.int64))]


def _filled(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers] | None:
    value = op.tensor("value")
    if value is None:
        return [np.zeros(shapes[0], np.float32)]
    if value.numbers is None or value.numbers.size != 1:
        return None
    return [np.broadcast_to(value.numbers.reshape(()), shapes[0])]


def _range(op: Operation, given: list[Any], shapes: list[Shape]) -> list[Numbers] | None:
    start, _, delta = (array.reshape(-1)[0] for array in given)
    return [start + delta * np.arange(shapes[0][0])] if _is_whole(given[0]) else None


_VALUES: Final[Mapping[str, Evaluation]] = {
    **dict.fromkeys(["Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"], _reshaped),
    "Abs": _arithmetic(np.abs),
    "Add": _arithmetic(np.add),
    "And": _truth(np.logical_and),
    "Cast": _cast,
    "Ceil": _reals(np.ceil),
    "Clip": _clip,
    "Concat": lambda op, given, shapes: [np.concatenate(given, op.integer("axis"))],
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Div": _div,
    "Equal": _truth(np.equal),
    "Expand": lambda op, given, shapes: [np.broadcast_to(given[0], shapes[0])],
    "Floor": _reals(np.floor),
    "Gather": lambda op, given, shapes: [np.take(given[0], given[1], op.integer("axis", 0))],
    "Greater": _truth(np.greater),
    "GreaterOrEqual": _truth(np.greater_equal),
    "Less": _truth(np.less),
    "LessOrEqual": _truth(np.less_equal),
    "Max": _arithmetic(_together(np.maximum)),
    "Min": _arithmetic(_together(np.minimum)),
    "Mod": _mod,
    "Mul": _arithmetic(np.multiply),
    "Neg": _arithmetic(np.negative),
    "NonZero": lambda op, given, shapes: [np.stack(np.nonzero(np.atleast_1d(given[0])))],
    "Not": _truth(np.logical_not),
    "Or": _truth(np.logical_or),
    "Pow": _pow,
    "Range": _range,
    "ReduceMax": _reduction(np.max),
    "ReduceMin": _reduction(np.min),
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
    "Round": _reals(np.round),
    "ScatterND": _scatter_nd,
    "Shape": lambda op, given, shapes: [np.array(shape_part(op), np.int64)],
    "Sign": _arithmetic(np.sign),
    "Size": lambda op, given, shapes: [
        np.array(np.prod(op.input(0).shape, dtype=object), np.int64)
    ],
    "Slice": _slice,
    "Split": _split,
    "Sub": _arithmetic(np.subtract),
    "Sum": _arithmetic(_together(np.add)),
    "Tile": lambda op, given, shapes: [np.tile(given[0], op.whole(1))],
    "Transpose": lambda op, given, shapes: [
        np.transpose(given[0], op.integers("perm", range(given[0].ndim - 1, -1, -1)))
    ],
    "Where": lambda op, given, shapes: [np.asarray(np.where(given[0] != 0, given[1], given[2]))],
    "Xor": _truth(np.logical_xor),
}
