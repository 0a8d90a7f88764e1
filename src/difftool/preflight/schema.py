"""The fields that an ONNX file may have: the messages of onnx.proto that make up a model's graph.

A field that is in no table is refused. So is a `Never`, a field of ONNX that reaches out of the
graph or that no model needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from difftool.preflight.wire import BYTES, FIXED32, FIXED64, VARINT

_TEXT: Final = "text"  # UTF-8
_WIRE_TYPES: Final = {
    "int64": VARINT,
    "int32": VARINT,  # also enumerations
    "uint64": VARINT,
    "float": FIXED32,
    "double": FIXED64,
    "bytes": BYTES,
    _TEXT: BYTES,
}


class Field:
    """A field's name and kind: the name of a message, or the type of a single value.

    - `many`: True if the field may be repeated
    - `wire`: the wire type of a value; repeated numbers may also be in one list
    - `numbers`, `message`: True if the values are numbers, or messages
    - `last`: the last value of an enumeration, which starts at 0; parsers skip unknown values
    """

    def __init__(
        self, name: str, kind: str, *, many: bool = False, last: int | None = None
    ) -> None:
        self.name, self.kind, self.many, self.last = name, kind, many, last
        self.wire = _WIRE_TYPES.get(kind, BYTES)
        self.numbers = self.wire != BYTES
        self.message = kind not in _WIRE_TYPES


@dataclass(frozen=True)
class Never:
    """A field that is refused: what a file that has it does, and the error's code."""

    what: str
    code: str


Message = Mapping[int, Field | Never]

_METADATA: Final = Field("metadata_props", "StringStringEntryProto", many=True)
_DEVICES: Final = Never("names devices to run on", "graph-executable")
_FUNCTIONS: Final = Never("holds functions or training graphs", "graph-functions")
_SPARSE: Final = Never("holds a sparse tensor", "graph-data")
_STRINGS: Final = Never("holds a tensor of strings", "graph-data")
_TYPE: Final = Never("has a value that is not a tensor", "graph-data")

MESSAGES: Final[Mapping[str, Message]] = {
    "ModelProto": {
        1: Field("ir_version", "int64"),
        2: Field("producer_name", _TEXT),
        3: Field("producer_version", _TEXT),
        4: Field("domain", _TEXT),
        5: Field("model_version", "int64"),
        6: Field("doc_string", _TEXT),
        7: Field("graph", "GraphProto"),
        8: Field("opset_import", "OperatorSetIdProto", many=True),
        14: _METADATA,
        20: _FUNCTIONS,
        25: _FUNCTIONS,
        26: _DEVICES,
    },
    "OperatorSetIdProto": {1: Field("domain", _TEXT), 2: Field("version", "int64")},
    "StringStringEntryProto": {1: Field("key", _TEXT), 2: Field("value", _TEXT)},
    "GraphProto": {
        1: Field("node", "NodeProto", many=True),
        2: Field("name", _TEXT),
        5: Field("initializer", "TensorProto", many=True),
        10: Field("doc_string", _TEXT),
        11: Field("input", "ValueInfoProto", many=True),
        12: Field("output", "ValueInfoProto", many=True),
        13: Field("value_info", "ValueInfoProto", many=True),
        14: Never("annotates tensors with how they were quantized", "graph-data"),
        15: _SPARSE,
        16: _METADATA,
    },
    "NodeProto": {
        1: Field("input", _TEXT, many=True),
        2: Field("output", _TEXT, many=True),
        3: Field("name", _TEXT),
        4: Field("op_type", _TEXT),
        5: Field("attribute", "AttributeProto", many=True),
        6: Field("doc_string", _TEXT),
        7: Field("domain", _TEXT),
        8: _FUNCTIONS,  # which of a function's overloads is called
        9: _METADATA,
        10: _DEVICES,
    },
    "AttributeProto": {
        1: Field("name", _TEXT),
        2: Field("f", "float"),
        3: Field("i", "int64"),
        4: Field("s", "bytes"),
        5: Field("t", "TensorProto"),
        6: Field("g", "GraphProto"),
        7: Field("floats", "float", many=True),
        8: Field("ints", "int64", many=True),
        9: Field("strings", "bytes", many=True),
        10: Field("tensors", "TensorProto", many=True),
        11: Field("graphs", "GraphProto", many=True),
        13: Field("doc_string", _TEXT),
        14: Field("tp", "TypeProto"),
        15: Field("type_protos", "TypeProto", many=True),
        20: Field("type", "int32", last=14),
        21: _FUNCTIONS,  # the name of a function's own attribute
        22: _SPARSE,
        23: _SPARSE,
    },
    "TensorProto": {
        1: Field("dims", "int64", many=True),
        2: Field("data_type", "int32"),
        3: Never("holds a part of a tensor", "graph-data"),
        4: Field("float_data", "float", many=True),
        5: Field("int32_data", "int32", many=True),
        6: _STRINGS,
        7: Field("int64_data", "int64", many=True),
        8: Field("name", _TEXT),
        9: Field("raw_data", "bytes"),
        10: Field("double_data", "double", many=True),
        11: Field("uint64_data", "uint64", many=True),
        12: Field("doc_string", _TEXT),
        13: Never("holds a tensor that has its data in another file", "graph-external"),
        14: Field("data_location", "int32", last=1),
        16: _METADATA,
    },
    "ValueInfoProto": {
        1: Field("name", _TEXT),
        2: Field("type", "TypeProto"),
        3: Field("doc_string", _TEXT),
        4: _METADATA,
    },
    "TypeProto": {
        1: Field("tensor_type", "TypeProto.Tensor"),
        4: _TYPE,
        5: _TYPE,
        6: Field("denotation", _TEXT),
        7: _TYPE,
        8: _TYPE,
        9: Field("optional_type", "TypeProto.Optional"),
    },
    "TypeProto.Tensor": {1: Field("elem_type", "int32"), 2: Field("shape", "TensorShapeProto")},
    "TypeProto.Optional": {1: Field("elem_type", "TypeProto")},
    "TensorShapeProto": {1: Field("dim", "TensorShapeProto.Dimension", many=True)},
    "TensorShapeProto.Dimension": {
        1: Field("dim_value", "int64"),
        2: Field("dim_param", _TEXT),
        3: Field("denotation", _TEXT),
    },
}

# A message has at most one of these fields; a parser would keep the last one and drop the others.
ONE_OF: Final[Mapping[str, frozenset[str]]] = {
    "TypeProto": frozenset({"tensor_type", "optional_type"}),
    "TensorShapeProto.Dimension": frozenset({"dim_value", "dim_param"}),
}
