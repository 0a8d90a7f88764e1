"""Replace the exporter's upsampling, four 2x2 convolutions, by Resize and one of 3x3.

The exporter splits them, since a CPU then takes 16 products instead of 36. On a GPU the nodes that
interleave the four results cost more than the products saved.
"""

from typing import Any, Final

import numpy as np
import onnx_ir as ir

from difftool.compile.lowerings.nodes import NewNodes, numbers
from difftool.compile.lowerings.parity import whole_kernel

SCALES: Final = [1.0, 1.0, 2.0, 2.0]
NEAREST: Final = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}
PARITIES: Final = ((0, 0), (0, 1), (1, 0), (1, 1))  # of rows, then columns
_WHOLE: Final[dict[str, Any]] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def join_upsampling(graph: ir.Graph) -> None:
    """Replace each upsampling that the exporter wrote by Resize and a 3x3 convolution."""
    for node in list(graph):
        if node.op_type == "Concat" and node.attributes.get_int("axis") == 3:
            _join(graph, node)


def _join(graph: ir.Graph, both: ir.Node) -> None:
    """Replace the nodes that end in this Concat and a Reshape, if they are an upsampling."""
    rows, between = _makers(both, "Concat")
    found = [_makers(row, "Conv") for row in rows]
    convs = [conv for makers, _ in found for conv in makers]
    last = [use.node for use in both.outputs[0].uses()]
    if len(convs) != 4 or [node.op_type for node in last] != ["Reshape"]:
        return
    x, bias = convs[0].inputs[0], convs[0].inputs[2:]
    kernels = [numbers(conv.inputs[1]) for conv in convs]
    weight = whole_kernel(kernels)
    same = all(conv.inputs[0] is x and conv.inputs[2:] == bias for conv in convs)
    placed = all(map(_is_placed, convs, PARITIES))
    if not same or not placed or weight is None or x is None or x.shape is None:
        return
    result, (batch, channels, height, width) = last[0].outputs[0], x.shape
    named = convs[0].inputs[1]
    assert named is not None
    assert result.shape is not None
    assert isinstance(height, int)
    assert isinstance(width, int)
    new = NewNodes(graph, str(named.name).removesuffix(".00.weight"))
    scales = new.constant("scales", np.array(SCALES, np.float32))
    large = (batch, channels, 2 * height, 2 * width)
    doubled = new.node("Resize", [x, None, scales], large, NEAREST)
    inputs = [doubled, new.constant("weight", weight), *bias]
    whole = new.node("Conv", inputs, result.shape, _WHOLE)
    old = [*convs, *(each for _, reshapes in found for each in reshapes), *rows, *between]
    new.replace([*old, both, last[0]], whole)


def _is_placed(conv: ir.Node, parity: tuple[int, int]) -> bool:
    """Tell if a convolution lies over the small image as that of a parity does."""
    row, column = parity
    has = conv.attributes
    return (
        tuple(has.get_ints("pads", ())) == (1 - row, 1 - column, row, column)
        and set(has.get_ints("strides", ())) <= {1}
        and set(has.get_ints("dilations", ())) <= {1}
        and has.get_int("group", 1) == 1
        and has.get_string("auto_pad", "NOTSET") == "NOTSET"
    )


def _makers(concat: ir.Node, kind: str) -> tuple[list[ir.Node], list[ir.Node]]:
    """Return the nodes of a kind that a Concat joins, and the Reshapes between them and it.

    A node whose result something else reads is left out.
    """
    reshapes = [node for node in _only_for(concat) if node.op_type == "Reshape"]
    makers = [node for reshape in reshapes for node in _only_for(reshape) if node.op_type == kind]
    return makers, reshapes


def _only_for(node: ir.Node) -> list[ir.Node]:
    values = [value for value in node.inputs if value is not None and len(value.uses()) == 1]
    return [maker for value in values if (maker := value.producer()) is not None]
