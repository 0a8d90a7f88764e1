"""B7: what is judged of an ONNX file is what a parser of Protocol Buffers reads.

Files are changed at the level of the wire format. Of each that is accepted, two parsers must see
what the judge saw: nothing more, nothing less, nothing else.
"""

from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Final

import onnx
import pytest
from onnx import helper

import difftool.preflight.decode
from difftool.bundle import CONDITIONER, STEP
from difftool.errors import ArtefactError
from difftool.preflight import GraphLimits, read_graph
from difftool.preflight.decode import Decoder, Refused
from difftool.preflight.schema import MESSAGES, Field
from difftool.preflight.wire import BYTES, WireError, fields
from tests.oracles.protobuf import by_cpp, by_python, plain
from tests.oracles.wire_mutations import mutated, varint
from tests.reliability.criteria import Cases

CASES: Final = 1_000
CASES_NIGHTLY: Final = 20_000
MOST_FIELDS: Final = 1_000_000


def small_file() -> bytes:
    """Return a small file with a field of most kinds."""
    weights = helper.make_tensor("w", onnx.TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0])
    wide = helper.make_tensor("v", onnx.TensorProto.DOUBLE, [2], [1.0, 2.0])
    sizes = helper.make_tensor("sizes", onnx.TensorProto.INT64, [2], [2, -1])
    whole = helper.make_tensor("i", onnx.TensorProto.INT32, [3], [-1, 2, 300])
    large = helper.make_tensor("u", onnx.TensorProto.UINT64, [1], [1 << 63])
    raw = helper.make_tensor("raw", onnx.TensorProto.FLOAT, [2], b"\0\0\x80\x3f" * 2, raw=True)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product", doc_string="a product"),
        helper.make_node("Reshape", ["y", "sizes"], ["z"], allowzero=1),
        helper.make_node("Transpose", ["z"], ["t"], perm=[1, 0]),
        helper.make_node("Clip", ["t"], ["out"], domain="ai.onnx"),
        helper.make_node("Constant", [], ["c"], value=raw),
        helper.make_node("Upsample", ["c"], ["d"], mode="nearest", scales=[1.0, 2.0]),
    ]
    nodes[0].metadata_props.add(key="pkg.torch", value="a module")
    known = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)],
        [weights, wide, sizes, whole, large],
        value_info=[known],
    )
    model = helper.make_model(
        graph, producer_name="tests", opset_imports=[helper.make_opsetid("", 18)]
    )
    model.metadata_props.add(key="made", value="by hand")
    data: bytes = model.SerializeToString()
    return data


def seen(data: bytes) -> dict[str, object] | None:
    """Return what the decoder sees of a file; None if it refuses it."""
    try:
        found = plain(Decoder(MOST_FIELDS).decode(memoryview(data), "ModelProto"))
    except (WireError, Refused):
        return None
    return found if "graph" in found else None


def agree(data: bytes) -> bool:
    """Tell if a file is accepted; AssertionError if a parser sees another one than the decoder."""
    found = seen(data)
    if found is None:
        return False
    assert by_python(data) == found, "Python's parser sees another file"
    assert by_cpp(data) == found, "C++'s parser sees another file"
    return True


@pytest.mark.parametrize("name", [STEP, CONDITIONER])
def test_a_bundles_graph_is_decoded_whole(tiny_bundle: Path, name: str) -> None:
    assert agree((tiny_bundle / name).read_bytes())


@pytest.mark.criterion("B7")
def test_parsers_see_what_was_judged(cases: Cases, nightly: bool) -> None:
    data = small_file()
    assert agree(data)
    accepted = cases.run(
        lambda seed: agree(mutated(data, seed)), range(CASES_NIGHTLY if nightly else CASES)
    )
    # Some changes mean the same to every parser. A judge that refuses all would prove nothing.
    assert 0.05 < sum(accepted) / len(accepted) < 0.8


@pytest.mark.seeded("B7")
@pytest.mark.parametrize("lenient", ["skips", "masks"])
def test_a_lenient_reader_is_seen(monkeypatch: pytest.MonkeyPatch, lenient: str) -> None:
    known = {number for message in MESSAGES.values() for number in message}

    def some(view: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
        """Read fields as one that skips what it does not know, or that drops high bits."""
        for number, wire, value in fields(view):
            kept = number if lenient == "skips" else number & (1 << 29) - 1
            if kept in known or lenient == "masks":
                yield kept, wire, value

    monkeypatch.setattr(difftool.preflight.decode, "fields", some)
    data = small_file()

    def all_agree() -> None:
        for seed in range(CASES):
            agree(mutated(data, seed))

    with pytest.raises(AssertionError, match="sees another file"):
        all_agree()


HIDDEN: Final = {
    "node": (1, helper.make_node("Loop", ["n"], ["hidden"])),
    "initializer": (5, onnx.TensorProto(name="nan", data_type=1, dims=[1], raw_data=b"\xff" * 4)),
    "external": (
        5,
        onnx.TensorProto(
            name="passwd",
            data_type=1,
            dims=[1],
            data_location=1,
            external_data=[onnx.StringStringEntryProto(key="location", value="/etc/passwd")],
        ),
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("bit", [32, 35])
def test_a_field_under_a_number_of_more_than_32_bits_is_refused(name: str, bit: int) -> None:
    """C++'s parser keeps the low 32 bits of a tag, and so it sees what others skip."""
    number, message = HIDDEN[name]
    model = onnx.load_from_string(small_file())
    content = message.SerializeToString()
    hidden = varint(1 << bit | number << 3 | BYTES) + varint(len(content)) + content
    graph = model.graph.SerializeToString() + hidden
    model.ClearField("graph")
    data = model.SerializeToString() + varint(7 << 3 | BYTES) + varint(len(graph)) + graph
    if bit == 32:
        met = by_cpp(data)
        list_of = {1: "node", 5: "initializer"}[number]
        assert len(met["graph"][list_of]) > len(by_python(small_file())["graph"][list_of])  # type: ignore[index]
    with pytest.raises(ArtefactError) as caught:
        read_graph(data, "graph", limits=GraphLimits())
    assert caught.value.code == "graph-wire"


@pytest.mark.parametrize("mark", ["ORTM", "TFL3"])
def test_a_file_that_a_runtime_takes_for_another_format_is_refused(mark: str) -> None:
    model = onnx.load_from_string(small_file())
    model.producer_name = mark
    data = model.SerializeToString()
    assert data[4:8].decode() == mark
    with pytest.raises(ArtefactError, match="another format") as caught:
        read_graph(data, "graph", limits=GraphLimits())
    assert caught.value.code == "graph-wire"


def test_settings_of_a_runtime_are_refused() -> None:
    model = onnx.load_from_string(small_file())
    model.metadata_props.add(key="ort_config", value="{}")
    with pytest.raises(ArtefactError, match="configures the runtime"):
        read_graph(model.SerializeToString(), "graph", limits=GraphLimits())


def test_the_schema_is_that_of_onnx() -> None:
    """Every field of the schema has ONNX's own name and kind, and no field of ONNX is left out."""
    for kind, message in MESSAGES.items():
        descriptor = attrgetter(kind)(onnx).DESCRIPTOR
        theirs = {field.number: field for field in descriptor.fields}
        assert theirs.keys() <= message.keys(), kind
        for number, known in message.items():
            if isinstance(known, Field) and number in theirs:
                assert known.name == theirs[number].name
                assert known.many == theirs[number].is_repeated
                names = theirs[number].enum_type
                assert known.last == (names and max(value.number for value in names.values))
