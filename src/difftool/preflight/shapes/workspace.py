"""The workspace of the few operators that may take much more memory than their outputs.

All others take less than a small multiple of their inputs and outputs. A convolution of real
numbers is one of these others: ONNX Runtime and OpenVINO lay out patches of the image only in
blocks that fit a cache, or if the patches have fewer numbers than the weight. A convolution of
whole numbers lays out all patches of an image.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final

from difftool.preflight.shapes.operation import Made, Operation
from difftool.preflight.shapes.products import attention_scores, einsum_space
from difftool.preflight.shapes.sized import byte_count


def _patches(op: Operation, made: Made) -> int:
    """Size the patches of a whole-number convolution."""
    weight = op.input(3 if op.node.operator == "QLinearConv" else 1).shape
    return math.prod(weight[1:]) * math.prod(made[0][1][2:]) * op.integer("group", 1)


def _spread_patches(op: Operation, made: Made) -> int:
    """Size the patches of a transposed convolution, which adds up one image at a time."""
    x, weight = op.input(0), op.input(1)
    return byte_count(x.kind, (*weight.shape[1:], *x.shape[2:]))


def _passes(op: Operation, made: Made) -> int:
    """Size the image between the passes of a Resize, which may grow all axes before it shrinks."""
    x = op.input(0)
    return byte_count(x.kind, tuple(map(max, x.shape, made[0][1])))


def _scores(op: Operation, made: Made) -> int:
    """Size the scores of an Attention, before and after softmax."""
    return 2 * byte_count(op.input(0).kind, attention_scores(op)[0])


def _products(op: Operation, made: Made) -> int:
    return byte_count(made[0][0], (einsum_space(op),))


WORKSPACE: Final[Mapping[str, Callable[[Operation, Made], int]]] = {
    "Attention": _scores,
    "ConvInteger": _patches,
    "ConvTranspose": _spread_patches,
    "Einsum": _products,
    "QLinearConv": _patches,
    "Resize": _passes,
}
