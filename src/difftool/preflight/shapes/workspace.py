"""What operators take beside their outputs, for the few that can take much more than these.

All others take less than a small multiple of what goes in and comes out. A convolution of real
numbers is among them: ONNX Runtime and OpenVINO lay out patches of the image only in blocks that a
cache holds, or if the patches are fewer numbers than the weight. Those of whole numbers lay out all
patches of an image.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final

from difftool.preflight.shapes.operation import Made, Operation
from difftool.preflight.shapes.products import attention_scores, einsum_space
from difftool.preflight.shapes.sized import bytes_of


def _patches(op: Operation, made: Made) -> int:
    """A convolution of whole numbers, whose weight is its input `index`."""
    weight = op.input(3 if op.node.operator == "QLinearConv" else 1).shape
    return math.prod(weight[1:]) * math.prod(made[0][1][2:]) * op.integer("group", 1)


def _spread_patches(op: Operation, made: Made) -> int:
    """A transposed convolution, which adds up the patch of every pixel, one image at a time."""
    x, weight = op.input(0), op.input(1)
    return bytes_of(x.kind, (*weight.shape[1:], *x.shape[2:]))


def _passes(op: Operation, made: Made) -> int:
    """Resize, which may stretch one axis after the other before it shrinks the last."""
    x = op.input(0)
    return bytes_of(x.kind, tuple(map(max, x.shape, made[0][1])))


def _scores(op: Operation, made: Made) -> int:
    """Attention: its scores, and what softmax makes of them."""
    return 2 * bytes_of(op.input(0).kind, attention_scores(op)[0])


def _products(op: Operation, made: Made) -> int:
    return bytes_of(made[0][0], (einsum_space(op),))


WORKSPACE: Final[Mapping[str, Callable[[Operation, Made], int]]] = {
    "Attention": _scores,
    "ConvInteger": _patches,
    "ConvTranspose": _spread_patches,
    "Einsum": _products,
    "QLinearConv": _patches,
    "Resize": _passes,
}
