"""Judge an ONNX file from end to end: it is well formed, small enough, and only a graph.

These are refused:

- operators of other domains than ONNX's own and com.microsoft
- nodes that run code of their own, control flow if none is expected, and functions
- data outside the file, as in CVE-2022-25882, CVE-2024-27318, CVE-2025-51480, CVE-2026-27489 and
  CVE-2026-34446
- impossible sizes, and numbers that are not finite
- anything that two readers of the file might see differently: see `difftool.preflight.decode`
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy as np

from difftool.errors import ArtefactError
from difftool.preflight.decode import Decoder, Message, Refused
from difftool.preflight.parts import AGAIN, Attribute, Graph, Node, Tensor, Value
from difftool.preflight.tensor import element_count, read_tensor
from difftool.preflight.wire import WireError

T = TypeVar("T")

_DOMAINS: Final = ("", "ai.onnx", "com.microsoft")
_CONTROL_FLOW: Final = ("If", "Loop", "Scan", "SequenceMap")
_EXECUTABLE: Final = ("EPContext",)  # gives bytes, or a file of them, to a device as a program
_CONFIGURES: Final = ("ort_config",)  # metadata from which ONNX Runtime may take settings
_DEEPEST: Final = 8  # graphs within graphs
_FIELDS_OF_A_NODE: Final = 200  # fields that may be read for each node that the limit allows
_LARGEST_FILE: Final = (1 << 31) - 1  # bytes; Protocol Buffers allow no more
# A runtime that finds one of these marks at this place reads the file in another format.
_MARKS: Final = slice(4, 8)
_OTHER_FORMATS: Final = (b"ORTM", b"TFL3")

# The field that holds an attribute's value, by the number of the attribute's type.
_VALUES: Final = {
    1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings", 9: "tensors",
    10: "graphs", 13: "tp", 14: "type_protos",
}  # fmt: skip
_LISTS: Final = (6, 7, 8, 9, 10, 14)  # an empty list is not in the file at all


@dataclass(frozen=True)
class GraphLimits:
    """The largest graph: bytes without its weights, and nodes, including those of inner graphs."""

    bytes: int = 64 << 20
    nodes: int = 20_000


def read_graph(
    data: bytes | memoryview,
    name: str,
    *,
    control_flow: bool = False,
    defaults: Collection[str] = (),
    limits: GraphLimits,
) -> Graph:
    """Read the graph of an ONNX file's bytes; ArtefactError says what is refused.

    Errors call the file `name`. With `control_flow` it may hold loops and branches. The inputs that
    `defaults` names may have a constant of their name, which stands for them if they are left out.
    """
    try:
        return _Judge(control_flow, defaults, limits).model(memoryview(data))
    except WireError as error:
        raise ArtefactError(f"{name} is not ONNX: {error}", AGAIN, code="graph-wire") from error
    except Refused as error:
        raise ArtefactError(f"{name} {error.what}", AGAIN, code=error.code) from error


class _Judge:
    """A reader of one file, which counts its nodes and the bytes of its weights."""

    def __init__(self, control_flow: bool, defaults: Collection[str], limits: GraphLimits) -> None:
        self._control_flow, self._defaults, self._limits = control_flow, defaults, limits
        self._nodes = self._weights = 0

    def model(self, data: memoryview) -> Graph:
        if len(data) > _LARGEST_FILE:
            raise Refused("has more than 2 GiB", "graph-limit")
        # Checked on the raw bytes, because a runtime looks at them before it parses anything.
        if bytes(data[_MARKS]) in _OTHER_FORMATS:
            raise WireError("it begins as a file of another format does")
        found = Decoder(self._limits.nodes * _FIELDS_OF_A_NODE).decode(data, "ModelProto")
        if "graph" not in found:
            raise WireError("it holds no graph")
        entries = found.get("metadata_props", ())
        metadata = {entry.get("key", ""): entry.get("value", "") for entry in entries}
        if any(key in _CONFIGURES for key in metadata):
            raise Refused("configures the runtime", "graph-executable")
        opset = self._opset(found.get("opset_import", ()))
        graph = self._graph(found["graph"], opset, depth=1)
        rest = len(data) - self._weights
        if rest > self._limits.bytes:
            allowed = self._limits.bytes
            raise Refused(
                f"has {rest} bytes beside its weights; {allowed} are allowed", "graph-limit"
            )
        return replace(graph, metadata=metadata)

    def _opset(self, entries: Iterable[Message]) -> dict[str, int]:
        versions = dict[str, int]()
        for entry in entries:
            domain = _domain(entry)
            if domain in versions:
                raise Refused(f"names the version of {domain or 'ONNX'} twice", "graph-names")
            versions[domain] = entry.get("version", 0)
        return versions

    def _graph(self, found: Message, opset: Mapping[str, int], depth: int) -> Graph:
        if depth > _DEEPEST:
            raise Refused(f"nests graphs more than {_DEEPEST} deep", "graph-limit")
        inputs = _named(_values(found.get("input", ())))
        outputs = _named(_values(found.get("output", ())))
        _named(_values(found.get("value_info", ())))
        constants = _named([(t.name, t) for t in map(self._tensor, found.get("initializer", ()))])
        nodes = tuple(self._node(node, opset, depth) for node in found.get("node", ()))
        # Inputs, constants and outputs of nodes share one namespace: no name may be made twice.
        defaults = self._defaults if depth == 1 else ()
        taken = [name for name in inputs if not (name in constants and name in defaults)]
        made = [*taken, *constants, *(name for node in nodes for name in node.outputs if name)]
        _named([(name, None) for name in made])
        return Graph(inputs, outputs, constants, nodes, opset)

    def _node(self, found: Message, opset: Mapping[str, int], depth: int) -> Node:
        self._nodes += 1
        if self._nodes > self._limits.nodes:
            raise Refused(f"has more than {self._limits.nodes} nodes", "graph-limit")
        operator, domain = found.get("op_type", ""), _domain(found)
        if operator in _EXECUTABLE:
            raise Refused(f"holds a node that runs code: {operator}", "graph-executable")
        flow = operator in _CONTROL_FLOW
        if flow and not self._control_flow:
            raise Refused(f"branches or loops: {operator}", "graph-control-flow")
        attributes = [
            self._attribute(attribute, opset, depth if flow else None)
            for attribute in found.get("attribute", ())
        ]
        return Node(
            operator,
            domain,
            found.get("name", ""),
            tuple(found.get("input", ())),
            tuple(found.get("output", ())),
            _named(attributes),
        )

    def _attribute(
        self, found: Message, opset: Mapping[str, int], depth: int | None
    ) -> tuple[str, Attribute]:
        """Return an attribute's name and value; it may hold a graph unless `depth` is None."""
        kind = found.get("type", 0)
        field = _VALUES.get(kind)
        # A value in a second field would be read by some runtimes and skipped by others.
        given = [name for name in _VALUES.values() if name in found]
        if field is None or given != ([field] if given or kind not in _LISTS else []):
            raise WireError("an attribute's value is of another type than it says")
        name, value = found.get("name", ""), found.get(field, ())
        items: Any = value if kind in _LISTS else [value]
        match field:
            case "f" | "floats":  # the bytes of all of them
                numbers = np.frombuffer(value or b"", "<f4")
                if not np.isfinite(numbers).all():
                    raise Refused("holds a number that is not finite", "graph-numbers")
                items = numbers.tolist()
            case "ints":
                items = map(int, items)
            case "s" | "strings":
                items = [bytes(text).decode(errors="replace") for text in items]
            case "t" | "tensors":
                items = [self._tensor(tensor) for tensor in items]
            case "g" | "graphs":
                if depth is None:
                    raise Refused("hides a graph in a node", "graph-control-flow")
                items = [self._graph(graph, opset, depth + 1) for graph in items]
            case "tp" | "type_protos":
                return name, ()  # nothing here needs a type
        return name, tuple(items) if kind in _LISTS else items[0]

    def _tensor(self, found: Message) -> Tensor:
        tensor = read_tensor(found)
        self._weights += tensor.size
        return tensor


def _domain(found: Message) -> str:
    """Return the domain of an operator or of an opset's version, "" for ONNX's own."""
    domain: str = found.get("domain", "")
    if domain not in _DOMAINS:
        raise Refused(f"uses operators of the domain {domain[:100]!r}", "graph-domain")
    return "" if domain == "ai.onnx" else domain


def _named(pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    found = dict[str, T]()
    for name, value in pairs:
        if name in found:
            raise Refused(f"makes or names {name[:100]!r} twice", "graph-names")
        found[name] = value
    return found


def _values(entries: Iterable[Message]) -> Iterable[tuple[str, Value]]:
    return [(entry.get("name", ""), _value(entry.get("type", {}))) for entry in entries]


def _value(found: Message) -> Value:
    tensor = found.get("tensor_type")
    if tensor is None:
        return Value()
    kind = tensor.get("elem_type", 0)
    if "shape" not in tensor:
        return Value(kind, None)
    sizes = [dim.get("dim_value") for dim in tensor["shape"].get("dim", ())]
    element_count(size for size in sizes if size is not None)  # refuses impossible sizes
    return Value(kind, tuple(sizes))
