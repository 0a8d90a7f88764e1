"""What an ONNX file holds once it has been read: graphs of nodes and tensors, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Value:
    """An input or output: ONNX's number of its type, and its sizes, None if they are free.

    What is no tensor has the type 0, and no sizes.
    """

    kind: int = 0
    shape: tuple[int | None, ...] | None = None


@dataclass(frozen=True)
class Tensor:
    """Constant data: its name, ONNX's number of its type, its sizes and how many bytes it has.

    `numbers` are those that are few enough to be somebody's shape, or its scales, flat: int64 of a
    type of whole numbers or truth values, float64 of a real one; None for all other tensors.
    """

    name: str
    kind: int
    dims: tuple[int, ...]
    size: int
    numbers: NDArray[np.int64] | NDArray[np.float64] | None = None


Attribute = Union[
    int, float, str, Tensor, "Graph", tuple[int, ...], tuple[float, ...], tuple[str, ...]
]


@dataclass(frozen=True)
class Node:
    """One operator of a graph. An input or output that is left out has the name ""."""

    operator: str
    domain: str  # "" is ONNX's own
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True)
class Graph:
    """A graph: inputs and outputs by name, constants by name, nodes in their order.

    `opset` are the versions of the domains, which inner graphs share with the outermost one.
    """

    inputs: Mapping[str, Value] = field(default_factory=dict)
    outputs: Mapping[str, Value] = field(default_factory=dict)
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    opset: Mapping[str, int] = field(default_factory=dict)
