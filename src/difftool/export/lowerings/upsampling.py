"""Compute nearest-neighbour doubling and the 3x3 convolution after it without the doubled image.

Four 2x2 convolutions of the small image do it, with the kernels of `compile.lowerings.parity`. This
takes 16 products instead of 36. `compile.lowerings.upsampling` joins them again for GPUs.
"""

from typing import Any, Final

import numpy as np
import onnx_ir as ir

from difftool.compile.lowerings.nodes import NewNodes, numbers
from difftool.compile.lowerings.parity import parity_kernels
from difftool.compile.lowerings.upsampling import NEAREST, SCALES

_PLAIN: Final[dict[str, Any]] = {
    "pads": [1, 1, 1, 1],
    "strides": [1, 1],
    "dilations": [1, 1],
    "group": 1,
}


def split_upsampling(graph: ir.Graph) -> None:
    """Replace every doubling that a 3x3 convolution follows by four 2x2 convolutions."""
    for resize in list(graph):
        if resize.op_type == "Resize":
            users = [use.node for use in resize.outputs[0].uses()]
            if len(users) == 1 and _doubles(resize) and _is_plain(users[0], resize.outputs[0]):
                _replace(graph, resize, users[0])


def _replace(graph: ir.Graph, resize: ir.Node, conv: ir.Node) -> None:
    x, weight = resize.inputs[0], conv.inputs[1]
    assert x is not None
    assert x.shape is not None
    assert weight is not None
    assert weight.const_value is not None
    batch, _, height, width = x.shape
    kernels = parity_kernels(weight.const_value.numpy())
    channels = kernels.shape[2]
    new = NewNodes(graph, str(weight.name).removesuffix(".weight"))

    rows = []
    for p in range(2):
        columns = []
        for q in range(2):
            kernel = new.constant(f"{p}{q}.weight", kernels[p, q])
            inputs = [x, kernel, *conv.inputs[2:]]
            attributes = {"kernel_shape": [2, 2], "pads": [1 - p, 1 - q, p, q]}
            part = new.node("Conv", inputs, (batch, channels, height, width), attributes)
            columns.append(new.reshaped(part, (batch, channels, height, width, 1)))
        # Concat interleaves 3 times faster than DepthToSpace does in ONNX Runtime.
        row = new.node("Concat", columns, (batch, channels, height, width, 2), {"axis": 4})
        rows.append(new.reshaped(row, (batch, channels, height, 2 * width)))
    both = new.node("Concat", rows, (batch, channels, height, 4 * width), {"axis": 3})
    new.replace([resize, conv], new.reshaped(both, (batch, channels, 2 * height, 2 * width)))


def _doubles(resize: ir.Node) -> bool:
    """Tell whether a Resize repeats every pixel of an image of known size 2x2 times."""
    x, scales = resize.inputs[0], numbers(resize.inputs[2]) if len(resize.inputs) > 2 else None
    if x is None or x.shape is None or scales is None:
        return False
    known = len(x.shape) == 4 and all(isinstance(size, int) for size in x.shape[2:])
    nearest = all(resize.attributes.get_string(name) == value for name, value in NEAREST.items())
    return known and nearest and scales.tolist() == SCALES


def _is_plain(conv: ir.Node, image: ir.Value) -> bool:
    """Tell whether a node is a 3x3 convolution of `image` that keeps its size."""
    if conv.op_type != "Conv" or conv.inputs[0] is not image:
        return False
    weight = conv.inputs[1]
    if weight is None or weight.const_value is None or list(weight.const_value.shape[2:]) != [3, 3]:
        return False
    given: dict[str, Any] = {name: item.value for name, item in conv.attributes.items()}
    return all(np.array_equal(given.get(name, ()), value) for name, value in _PLAIN.items())
