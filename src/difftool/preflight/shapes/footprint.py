"""A walk through a graph that adds up the memory of its values, and stops if it is too much."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from difftool.errors import ArtefactError
from difftool.preflight.parts import AGAIN, Graph, Node, Tensor, fits
from difftool.preflight.shapes.operation import MEMORY, OPERATOR, SHAPE, Made, Operation, refused
from difftool.preflight.shapes.sized import REALS, Numbers, Shape, Sized, byte_count, is_small
from difftool.preflight.shapes.table import NEWEST, OLDEST, find_rule
from difftool.preflight.shapes.values import OF_SIZES, evaluate
from difftool.preflight.shapes.workspace import WORKSPACE
from difftool.preflight.tensor import BITS, LARGEST_SIZE, MOST_DIMENSIONS

NAMES: Final = "graph-names"
_MOST_NUMBERS: Final = 1 << 20  # numbers that are followed in a whole graph
_RAISE: Final = "raise the limit, if you know the bundle: `limits`"


@dataclass(frozen=True)
class Footprint:
    """The memory that a graph takes for inputs of given sizes, in bytes.

    - `peak`: the most that all values take at any time
    - `largest`: the name and the bytes of the largest value
    - `outputs`: the sizes of the graph's outputs
    - `folded`: the values computed from constants alone, which runtimes make when they load a graph
    """

    peak: int
    largest: tuple[str, int]
    outputs: Mapping[str, Shape]
    folded: int


def infer(graph: Graph, inputs: Mapping[str, Shape], *, limit: int) -> Footprint:
    """Return the memory that a graph takes if its inputs have these sizes.

    The graph is not run, and its values are not allocated. A value counts from the node that makes
    it to the last one that takes it. The graph's inputs and outputs, its constants, and all that is
    made of constants alone count all the time.

    Raises:
        ArtefactError: the code is graph-memory if the graph takes more than `limit` bytes,
            graph-shape if its sizes do not fit or depend on its data, graph-operator if an operator
            has no rule, and graph-names if a name is made twice or not at all.
    """
    return Walk(graph, limit).run(inputs)


class Walk:
    """A walk over a graph's nodes; `values` has types and sizes of the values met so far."""

    def __init__(self, graph: Graph, limit: int) -> None:
        self.values: dict[str, Sized] = {}
        self._graph = graph
        self._limit = limit
        self._opset = graph.opset.get("", graph.opset.get("ai.onnx", 0))
        self._always = 0  # bytes of the values that stay to the end
        self._live = 0  # bytes of the others, at this node
        self._most = 0  # the largest `_live` so far
        self._folded = 0
        self._largest = ("", 0)
        self._going: dict[str, int] = {}  # bytes of each value in `_live`
        self._numbers = _MOST_NUMBERS  # numbers that may still be followed
        self._last = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}

    def run(self, inputs: Mapping[str, Shape]) -> Footprint:
        """Visit all nodes, and return the footprint of the whole graph."""
        self._start(inputs)
        for index, node in enumerate(self._graph.nodes):
            self._step(index, node)
        outputs = {}
        for name in self._graph.outputs:
            if name not in self.values:
                raise _not_so(f"nothing makes its output {name[:60]!r}", NAMES)
            outputs[name] = self.values[name].shape
        return Footprint(self._always + self._most, self._largest, outputs, self._folded)

    def _start(self, inputs: Mapping[str, Shape]) -> None:
        """Add the graph's own inputs and constants."""
        if not OLDEST <= self._opset <= NEWEST:
            raise ArtefactError(
                f"the graph's operators are of opset {self._opset}, not of {OLDEST} to {NEWEST}",
                AGAIN,
                code=OPERATOR,
            )
        for name, tensor in self._graph.constants.items():
            size = _possible(tensor.kind, tensor.dims, name)
            self._keep(name, Sized(tensor.kind, tensor.dims, True, _followed(tensor)), size)
        for name, value in self._graph.inputs.items():
            shape, declared = inputs.get(name), value.shape
            if name in self.values:
                continue  # it is left out, so its default stands for it
            if shape is None or declared is None or not fits(declared, shape):
                raise _not_so(f"its input {name[:60]!r} cannot be of the sizes {shape}")
            self._keep(name, Sized(value.kind, shape), _possible(value.kind, shape, name))

    def _step(self, index: int, node: Node) -> None:
        """Add the outputs of the node at an index, and drop what no later node takes."""
        rule = find_rule(node.domain, node.operator)
        if rule is None:
            raise refused(node, "no such operator is known here", OPERATOR)
        given: list[Sized | None] = []
        for name in node.inputs:
            value = self.values.get(name) if name else None
            if value is None and name:
                raise refused(node, f"takes {name[:60]!r}, which nothing before it makes", NAMES)
            given.append(value)
        operation = Operation(node, given, self._opset)
        made = rule(operation)
        if len(node.outputs) > len(made):
            raise refused(node, f"gives {len(made)} outputs, not {len(node.outputs)}")
        # Shape and Size depend only on sizes, which are known, so runtimes fold them as well.
        constant = node.operator in OF_SIZES or all(
            value is None or value.constant for value in given
        )
        self._make(operation, made, constant)
        self._free(index, node.inputs)
        self._free(index, node.outputs)  # an output that nobody takes goes at once

    def _make(self, op: Operation, made: Made, constant: bool) -> None:
        """Add the outputs of a node, and its workspace."""
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
        """Drop the values that no later node takes."""
        for name in names:
            if name in self._going and self._last.get(name, index) <= index:
                self._live -= self._going.pop(name)

    def _size(self, node: Node, kind: int, shape: Shape) -> int:
        """Return the bytes of an output; ArtefactError if its type or sizes are impossible."""
        if kind not in BITS:
            raise refused(node, f"makes the type {kind}, which no model has", SHAPE)
        if len(shape) > MOST_DIMENSIONS:
            raise refused(node, f"makes {len(shape)} dimensions")
        size = byte_count(kind, shape)
        if size > self._limit:
            raise self._too_much(node, size)
        for one in shape:
            if not 0 <= one <= LARGEST_SIZE:
                raise refused(node, f"makes a dimension of {one}")
        return size

    def _too_much(self, node: Node, size: int) -> ArtefactError:
        what = f"takes {size} bytes of memory; {self._limit} are allowed"
        return refused(node, what, MEMORY, _RAISE)

    def _keep(self, name: str, value: Sized, size: int) -> None:
        """Add an input or a constant of the graph, which stays to the end."""
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


def _possible(kind: int, shape: Shape, name: str) -> int:
    """Return the bytes of an input or constant; ArtefactError if type or sizes are impossible."""
    if kind not in BITS:
        raise _not_so(f"{name[:60]!r} is of the type {kind}, which no model has")
    if len(shape) > MOST_DIMENSIONS or not all(0 <= size <= LARGEST_SIZE for size in shape):
        raise _not_so(f"{name[:60]!r} cannot be of its sizes")
    return byte_count(kind, shape)


def _followed(tensor: Tensor) -> Numbers | None:
    """Return a constant's numbers in its shape, if it is small enough for them to be followed."""
    numbers = tensor.numbers
    if numbers is None or not is_small(tensor.kind, tensor.dims):
        return None
    return numbers.astype(REALS.get(tensor.kind, "int64"), copy=False).reshape(tensor.dims)


def _not_so(what: str, code: str = SHAPE) -> ArtefactError:
    return ArtefactError(f"the graph: {what}", AGAIN, code=code)
