"""A walk through a graph that adds up what its values take, and stops as soon as it is too much."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from difftool.errors import ArtefactError
from difftool.preflight.parts import Graph, Node, Tensor
from difftool.preflight.shapes.operation import (
    MEMORY,
    OPERATOR,
    SHAPE,
    Made,
    Operation,
    refused,
)
from difftool.preflight.shapes.sized import (
    REALS,
    Numbers,
    Shape,
    Sized,
    bytes_of,
    is_small,
)
from difftool.preflight.shapes.table import NEWEST, OLDEST, rule_of
from difftool.preflight.shapes.values import evaluate
from difftool.preflight.shapes.workspace import WORKSPACE
from difftool.preflight.tensor import BITS, LARGEST_SIZE, MOST_DIMENSIONS

NAMES: Final = "graph-names"
_MOST_NUMBERS: Final = 1 << 20  # that are followed in all of a graph
_SIZES: Final = ("Shape", "Size")
_RAISE: Final = "raise the limit, if you know the bundle: --max-memory"


@dataclass(frozen=True)
class Footprint:
    """What a graph takes for inputs of given sizes, in bytes.

    - `peak`: of all values that are there at once, at most
    - `largest`: the name and the bytes of the largest value
    - `outputs`: the sizes of the graph's outputs
    - `folded`: of what is computed from constants, which runtimes do when they load a graph
    """

    peak: int
    largest: tuple[str, int]
    outputs: Mapping[str, Shape]
    folded: int


def infer(graph: Graph, inputs: Mapping[str, Shape], *, limit: int) -> Footprint:
    """What a graph takes if its inputs have these sizes, and may take no more than `limit` bytes.

    Nothing of the graph is run, and nothing of its sizes is allocated. A value counts from the node
    that makes it to the last one that takes it; the graph's inputs and outputs, its constants and
    all that is made of constants alone count always and in full.

    Raises:
        ArtefactError: with the code graph-memory if it takes too much, graph-shape if its sizes do
            not fit or depend on its data, graph-operator if there is no rule for an operator,
            graph-names if a name is made twice or not at all.
    """
    walk = Walk(graph, limit)
    walk.start(inputs)
    for index, node in enumerate(graph.nodes):
        walk.step(index, node)
    return walk.end()


class Walk:
    """The values of a graph that have been met. `values` has their types and sizes by name."""

    def __init__(self, graph: Graph, limit: int) -> None:
        self.values: dict[str, Sized] = {}
        self._graph = graph
        self._limit = limit
        self._opset = graph.opset.get("", graph.opset.get("ai.onnx", 0))
        self._always = 0  # bytes that stay
        self._live = 0  # bytes that come and go
        self._most = 0  # of these, at any time
        self._folded = 0
        self._largest = ("", 0)
        self._going: dict[str, int] = {}  # bytes of each of those that come and go
        self._numbers = _MOST_NUMBERS  # that may still be followed
        self._last = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}

    def start(self, inputs: Mapping[str, Shape]) -> None:
        """The graph's own inputs and constants."""
        if not OLDEST <= self._opset <= NEWEST:
            raise ArtefactError(
                f"the graph's operators are of opset {self._opset}, not of {OLDEST} to {NEWEST}",
                "export it again, with this difftool",
                code=OPERATOR,
            )
        for name, tensor in self._graph.constants.items():
            size = _possible(tensor.kind, tensor.dims, name)
            self._stays(name, Sized(tensor.kind, tensor.dims, True, _numbers_of(tensor)), size)
        for name, value in self._graph.inputs.items():
            shape, declared = inputs.get(name), value.shape
            if shape is None or declared is None or not _fits(declared, shape):
                raise _not_so(f"its input {name[:60]!r} cannot be of the sizes {shape}")
            self._stays(name, Sized(value.kind, shape), _possible(value.kind, shape, name))

    def step(self, index: int, node: Node) -> None:
        """Take the node at an index."""
        rule = rule_of(node.domain, node.operator)
        if rule is None:
            raise refused(node, "no such operator is known here", OPERATOR)
        values = self.values
        given: list[Sized | None] = []
        for name in node.inputs:
            value = values.get(name) if name else None
            if value is None and name:
                raise refused(node, f"takes {name[:60]!r}, which nothing before it makes", NAMES)
            given.append(value)
        operation = Operation(node, given, self._opset)
        made = rule(operation)
        if len(node.outputs) > len(made):
            raise refused(node, f"gives {len(made)} outputs, not {len(node.outputs)}")
        constant = node.operator in _SIZES or all(
            value is None or value.constant for value in given
        )
        self._make(operation, made, constant)
        self._free(index, node.inputs)
        self._free(index, node.outputs)

    def end(self) -> Footprint:
        """What was found."""
        outputs = {}
        for name in self._graph.outputs:
            if name not in self.values:
                raise _not_so(f"nothing makes its output {name[:60]!r}", NAMES)
            outputs[name] = self.values[name].shape
        return Footprint(self._always + self._most, self._largest, outputs, self._folded)

    def _make(self, op: Operation, made: Made, constant: bool) -> None:
        """Add the outputs of a node, and what it takes beside them."""
        node, sizes = op.node, []
        for name, (kind, shape) in zip(node.outputs, made, strict=False):
            sizes.append(size := self._size(node, kind, shape) if name else 0)
            if size > self._largest[1]:
                self._largest = (name, size)
        total = sum(sizes)
        if constant:
            self._always += total
            self._folded += total
        else:
            self._live += total
        space = WORKSPACE.get(node.operator)
        beside = space(op, made) if space is not None and not node.domain else 0
        self._most = max(self._most, self._live + beside)
        if self._always + self._most > self._limit:
            raise self._too_much(node, max(total + beside, self._always + self._most))
        numbers = evaluate(op, made) if self._numbers > 0 else [None] * len(made)
        for name, (kind, shape), size, known in zip(
            node.outputs, made, sizes, numbers, strict=False
        ):
            if not name:
                continue
            if name in self.values:
                raise refused(node, f"makes {name[:60]!r} a second time", NAMES)
            if known is not None:
                self._numbers -= known.size
            self.values[name] = Sized(kind, shape, constant, known)
            if not constant and name not in self._graph.outputs:
                self._going[name] = size

    def _free(self, index: int, names: Sequence[str]) -> None:
        """Let those go that no later node takes."""
        going, last = self._going, self._last
        for name in names:
            if name in going and last.get(name, index) <= index:
                self._live -= going.pop(name)

    def _size(self, node: Node, kind: int, shape: Shape) -> int:
        """Bytes of an output of this type and these sizes, if there is such a thing."""
        if kind not in BITS:
            raise refused(node, f"makes the type {kind}, which no model has", SHAPE)
        if len(shape) > MOST_DIMENSIONS:
            raise refused(node, f"makes {len(shape)} dimensions")
        size = bytes_of(kind, shape)
        if size > self._limit:
            raise self._too_much(node, size)
        for one in shape:
            if not 0 <= one <= LARGEST_SIZE:
                raise refused(node, f"makes a dimension of {one}")
        return size

    def _too_much(self, node: Node, size: int) -> ArtefactError:
        what = f"takes {size} bytes of memory; {self._limit} are allowed"
        return refused(node, what, MEMORY, _RAISE)

    def _stays(self, name: str, value: Sized, size: int) -> None:
        """Add an input or a constant of the graph."""
        if size > self._largest[1]:
            self._largest = (name, size)
        self._always += size
        if self._always > self._limit:
            raise ArtefactError(
                f"the graph's inputs and constants take {self._always} bytes of memory; "
                f"{self._limit} are allowed",
                _RAISE,
                code=MEMORY,
            )
        self.values[name] = value


def _fits(declared: tuple[int | None, ...], shape: Shape) -> bool:
    """Whether sizes are those that a graph declares, any if it leaves them free."""
    return len(declared) == len(shape) and all(
        size is None or size == given for size, given in zip(declared, shape, strict=True)
    )


def _possible(kind: int, shape: Shape, name: str) -> int:
    """Bytes of an input or constant; ArtefactError if there is no such thing."""
    if kind not in BITS:
        raise _not_so(f"{name[:60]!r} is of the type {kind}, which no model has")
    if len(shape) > MOST_DIMENSIONS or not all(0 <= size <= LARGEST_SIZE for size in shape):
        raise _not_so(f"{name[:60]!r} cannot be of its sizes")
    return bytes_of(kind, shape)


def _numbers_of(tensor: Tensor) -> Numbers | None:
    """A constant's numbers in its shape, if they are followed."""
    numbers = tensor.numbers
    if numbers is None or not is_small(tensor.kind, tensor.dims):
        return None
    return numbers.astype(REALS.get(tensor.kind, "int64"), copy=False).reshape(tensor.dims)


def _not_so(what: str, code: str = SHAPE) -> ArtefactError:
    return ArtefactError(f"the graph: {what}", "export it again, with this difftool", code=code)
