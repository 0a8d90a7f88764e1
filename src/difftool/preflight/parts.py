"""Graphs, nodes and tensors of an ONNX file, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Union

import numpy as np
from numpy.typing import NDArray

AGAIN: Final = "export it again, with this difftool"  # the hint of most refusals


@dataclass(frozen=True)
class Value:
    """An input or output: ONNX's number of its type, and its sizes, each None if it is free.

    A value that is not a tensor has the type 0, and no sizes.
    """

    kind: int = 0
    shape: tuple[int | None, ...] | None = None


@dataclass(frozen=True)
class Tensor:
    """A constant: its name, ONNX's number of its type, its sizes, and its number of bytes.

    `numbers` holds the values of a tensor that is small enough to be a shape or a resize's scales,
    flat: int64 for whole numbers and truth values, float64 for reals. It is None for all others.
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
    """A graph: inputs, outputs and constants by name, and nodes in their order.

    `opset` holds the versions of the domains, which inner graphs share with the outermost one.
    `metadata` holds what the file says of itself, for the outermost one.
    """

    inputs: Mapping[str, Value] = field(default_factory=dict)
    outputs: Mapping[str, Value] = field(default_factory=dict)
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    opset: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


def fits(sizes: Sequence[int | None], others: Sequence[int | None]) -> bool:
    """Tell if two values can have the same sizes; None stands for a free one."""
    return len(sizes) == len(others) and all(
        size is None or other is None or size == other
        for size, other in zip(sizes, others, strict=True)
    )
