"""An ONNX file, walked from end to end: it is one, it is small enough, and it is only a graph.

Refused are operators of other domains than ONNX's own and com.microsoft, nodes that run code of
their own, control flow where none is expected, functions, data outside the file (of which
CVE-2022-25882, CVE-2024-27318, CVE-2025-51480, CVE-2026-27489 and CVE-2026-34446 are cases), sizes
that cannot be, and numbers that are not finite.
"""

import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from difftool.errors import ArtefactError
from difftool.preflight.tensor import TensorError, check_tensor, count_of
from difftool.preflight.wire import WireError, fields, signed

_DOMAINS: Final = ("", "ai.onnx", "com.microsoft")
_CONTROL_FLOW: Final = ("If", "Loop", "Scan", "SequenceMap")
_EXECUTABLE: Final = ("EPContext",)  # hands bytes, or a file of them, to a device as a program
_DEEPEST: Final = 8  # graphs within graphs
_FIELDS_OF_A_NODE: Final = 200  # so many fields may be read for each node of the limit
_LARGEST_FILE: Final = (1 << 31) - 1  # of Protocol Buffers
_AGAIN: Final = "export it again, with this difftool"

# Fields of ModelProto, GraphProto, NodeProto, AttributeProto, ValueInfoProto and TypeProto.
_GRAPH, _TRAINING, _FUNCTIONS = 7, 20, 25
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _SPARSE_INITIALIZER = 1, 5, 11, 12, 15
_NODE_OUTPUT, _OPERATOR, _ATTRIBUTE, _DOMAIN = 2, 4, 5, 7
_FLOAT, _TENSOR, _SUBGRAPH, _FLOATS, _TENSORS, _SUBGRAPHS, _SPARSE, _SPARSES = (
    2, 5, 6, 7, 10, 11, 22, 23,
)  # fmt: skip


@dataclass(frozen=True)
class GraphLimits:
    """How large a graph may be: bytes without its weights, and nodes, those of inner graphs too."""

    bytes: int = 64 << 20
    nodes: int = 20_000


@dataclass(frozen=True)
class Value:
    """An input or output: ONNX's number of its type, and its sizes, None where they are free.

    What is no tensor has the type 0, and no sizes.
    """

    kind: int = 0
    shape: tuple[int | None, ...] | None = None


@dataclass(frozen=True)
class Graph:
    """The outermost graph of a file."""

    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]
    nodes: int


def check_graph(path: Path, *, control_flow: bool = False, limits: GraphLimits) -> Graph:
    """The graph of an ONNX file; ArtefactError says what of it is refused.

    `control_flow` is whether it may hold loops and branches.
    """
    try:
        with open(path, "rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is empty"
        raise ArtefactError(f"cannot read {path}: {reason}", _AGAIN, code="graph-wire") from error
    return read_graph(data, str(path), control_flow=control_flow, limits=limits)


def read_graph(
    data: memoryview, name: str, *, control_flow: bool = False, limits: GraphLimits
) -> Graph:
    """The same of an ONNX file's bytes; `name` is what errors call it."""
    walk = _Walk(name, control_flow, limits)
    try:
        return walk.model(data)
    except WireError as error:
        raise walk.refused(f"is not ONNX: {error}", "graph-wire") from error


@dataclass
class _Walk:
    """What has been met of a file so far."""

    name: str
    control_flow: bool
    limits: GraphLimits
    nodes: int = 0
    weights: int = 0  # bytes
    read: int = 0  # fields
    inputs: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)

    def refused(self, what: str, code: str) -> ArtefactError:
        return ArtefactError(f"{self.name} {what}", _AGAIN, code=code)

    def model(self, data: memoryview) -> Graph:
        if len(data) > _LARGEST_FILE:
            raise self.refused("has more than 2 GiB", "graph-limit")
        graphs = 0
        for number, value in self._parts(data):
            if number == _GRAPH:
                graphs += 1
                self._graph(_message(value), depth=1, outermost=True)
            elif number in (_TRAINING, _FUNCTIONS):
                raise self.refused("holds functions or training graphs", "graph-functions")
        if graphs != 1:
            raise self.refused(f"holds {graphs} graphs", "graph-wire")
        if len(data) - self.weights > self.limits.bytes:
            raise self.refused(
                f"has {len(data) - self.weights} bytes beside its weights; "
                f"{self.limits.bytes} are allowed",
                "graph-limit",
            )
        return Graph(self.inputs, self.outputs, self.nodes)

    def _parts(self, data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        most = self.limits.nodes * _FIELDS_OF_A_NODE
        for number, _, value in fields(data):
            self.read += 1
            if self.read > most:
                raise self.refused("has too many parts", "graph-limit")
            yield number, value

    def _graph(self, data: memoryview, depth: int, *, outermost: bool = False) -> None:
        if depth > _DEEPEST:
            raise self.refused(f"nests graphs more than {_DEEPEST} deep", "graph-limit")
        made = set[str]()  # by the nodes and initializers
        for number, value in self._parts(data):
            if number == _NODE:
                self._define(made, self._node(_message(value), depth))
            elif number == _INITIALIZER:
                self._define(made, [self._tensor(_message(value))])
            elif number in (_INPUT, _OUTPUT):
                name, known = self._value(_message(value))
                place = self.inputs if number == _INPUT else self.outputs
                if outermost:
                    if name in place:
                        raise self.refused(f"names {name!r} twice", "graph-names")
                    place[name] = known
            elif number == _SPARSE_INITIALIZER:
                raise self.refused("holds a sparse tensor", "graph-data")

    def _define(self, made: set[str], names: Iterable[str]) -> None:
        for name in names:
            if name and name in made:
                raise self.refused(f"makes {name!r} twice", "graph-names")
            made.add(name)

    def _node(self, data: memoryview, depth: int) -> list[str]:
        """The names of what a node makes."""
        self.nodes += 1
        if self.nodes > self.limits.nodes:
            raise self.refused(f"has more than {self.limits.nodes} nodes", "graph-limit")
        outputs, attributes, operator, domain = list[str](), list[memoryview](), "", ""
        for number, value in self._parts(data):
            if number == _NODE_OUTPUT:
                outputs.append(_text(value))
            elif number == _ATTRIBUTE:
                attributes.append(_message(value))
            elif number == _OPERATOR:
                operator = _text(value)
            elif number == _DOMAIN:
                domain = _text(value)
        if domain not in _DOMAINS:
            raise self.refused(f"uses operators of the domain {domain!r}", "graph-domain")
        if operator in _EXECUTABLE:
            raise self.refused(f"holds a node that runs code: {operator}", "graph-executable")
        flow = operator in _CONTROL_FLOW
        if flow and not self.control_flow:
            raise self.refused(f"branches or loops: {operator}", "graph-control-flow")
        for attribute in attributes:
            self._attribute(attribute, depth if flow else None)
        return outputs

    def _attribute(self, data: memoryview, depth: int | None) -> None:
        """Look into an attribute; it holds graphs only where they are of `depth` + 1."""
        for number, value in self._parts(data):
            if number in (_SUBGRAPH, _SUBGRAPHS):
                if depth is None:
                    raise self.refused("hides a graph in a node", "graph-control-flow")
                self._graph(_message(value), depth + 1)
            elif number in (_TENSOR, _TENSORS):
                self._tensor(_message(value))
            elif number in (_SPARSE, _SPARSES):
                raise self.refused("holds a sparse tensor", "graph-data")
            elif number in (_FLOAT, _FLOATS):
                numbers = _message(value)
                if len(numbers) % 4 or not np.isfinite(np.frombuffer(numbers, "<f4")).all():
                    raise self.refused("holds a number that is not finite", "graph-numbers")

    def _tensor(self, data: memoryview) -> str:
        try:
            name, size = check_tensor(data)
        except TensorError as error:
            raise self.refused(f"holds a tensor that {error}", error.code) from error
        self.weights += size
        return name

    def _value(self, data: memoryview) -> tuple[str, Value]:
        """Name, type and sizes of an input or output."""
        name, value = "", Value()
        for number, part in self._parts(data):
            if number == 1:
                name = _text(part)
            elif number == 2:
                value = self._type(_message(part))
        return name, value

    def _type(self, data: memoryview) -> Value:
        kind, shape = 0, list[int | None]()
        for number, tensor in self._parts(data):
            if number != 1:
                return Value()
            for inner, part in self._parts(_message(tensor)):
                if inner == 1 and isinstance(part, int):
                    kind = part
                elif inner == 2:
                    shape += [
                        self._size(_message(dim)) for key, dim in self._parts(_message(part))
                        if key == 1
                    ]  # fmt: skip
        return Value(kind, tuple(shape))

    def _size(self, data: memoryview) -> int | None:
        size: int | None = None
        for number, value in self._parts(data):
            if number == 1 and isinstance(value, int):
                size = signed(value)
        if size is not None:
            try:
                count_of([size])
            except TensorError as error:
                raise self.refused(f"has an input or output that {error}", error.code) from error
        return size


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise WireError("a number stands where a message should")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode(errors="replace")
