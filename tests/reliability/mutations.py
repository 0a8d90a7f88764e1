"""Fourteen ways to spoil a bundle, each from a seed, with its digests left alone or made anew.

`WAYS` maps a name to a function of (bundle's folder, generator, whether to hash anew). If the
digests are made anew, the parser behind them is what is met. The last three ways are about what
the graphs hide, what they say, and what they take.
"""

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from difftool.bundle import CONDITIONER, MANIFEST, STEP, file_entries, write_manifest
from difftool.files import read_json
from difftool.preflight.wire import BYTES
from tests.oracles.wire_mutations import WIDE, Part, taken_apart, varint
from tests.runtime.test_prepare import LIES

GRAPHS: Final = (STEP, CONDITIONER)
FILES: Final = (*GRAPHS, MANIFEST)
DEEP: Final = 10_000
_SIZES: Final = (0, -1, 2**31, 2**40, 2**63 - 1, -(2**63), 10**30)
_JSON_VALUES: Final = (None, True, -1, 0.5, "x", [], {}, [1], {"a": 1}, 10**400, "\ud800")

# What a number, a pair or a digest must not be.
_WILD: Final = (
    *(0, -1, 0.0, -0.5, 2**31, 2**63, 10**30, 10**400, 1e308, 1e-308, True, "", "x", "\u0000"),
    *("y" * 100_000, [], [0], [0, 0], [1, -1], [1, 1], [-1e308, 1e308], [0, 1e-308], [1, 2, 3]),
    *(["0", "1"], [0, True], [None, None], [[0, 1], [1, 2]], {}, {"low": 0}, "0" * 64, "f" * 63),
)
_SANE: Final[dict[str, Callable[[Any], bool]]] = {  # of these, what makes another model
    "data_range": lambda value: False,
    "sigma_data": lambda value: type(value) in (int, float) and 1e-30 <= value <= 1e30,
    "timestep_scale": lambda value: type(value) in (int, float) and 1e-30 <= abs(value) <= 1e30,
    "timestep_start": lambda value: type(value) in (int, float) and abs(value) <= 1e30,
    "classes": lambda value: type(value) is int and value == 0,
    "digest": lambda value: value == "",
}

_DIGEST: Final = re.compile(r'(?<="digest": ")[0-9a-f]{64}(?=")')
_TRUE_OF_ONE: Final = ("x of the first", "row of one")  # sample, which is what is drawn
_HUGE: Final = [1 << 20, 1 << 20]
# An operator's inputs, of which it makes a trillion numbers.
_BOMBS: Final = {
    "ConstantOfShape": (_HUGE,),
    "Expand": (1, _HUGE),
    "Tile": ([[1]], _HUGE),
    "Range": (0, 1 << 40, 1),
}


def truncation(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """End a file early."""
    path = bundle / rng.choice(GRAPHS if rehashed else FILES)
    os.truncate(path, rng.randrange(path.stat().st_size))
    _make_digests(bundle, rehashed)


def bit_flip(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """Flip a bit of a file."""
    path = bundle / rng.choice(GRAPHS if rehashed else FILES)
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    _make_digests(bundle, rehashed)


def size_lie(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """Let the manifest give a file another size."""
    entry = rng.choice(GRAPHS)
    size = (bundle / entry).stat().st_size
    lie = rng.choice([size - 1, size + 1, 2 * size, *_SIZES])
    _edit(bundle, rehashed, lambda m: m["files"][entry].update(size=lie))


def type_confusion(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """Give a value of the manifest, or of a graph, another type."""
    if rehashed and rng.random() < 0.5:
        _edit_graph(bundle, rng.choice(GRAPHS), rehashed, lambda m: _confuse(m, rng))
        return

    def change(manifest: dict[str, Any]) -> None:
        place, key = rng.choice(_typed(manifest))
        old = place[key]
        place[key] = rng.choice([v for v in _JSON_VALUES if type(v) is not type(old)])

    _edit(bundle, rehashed, change)


def duplicate_keys(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """Repeat a key of the manifest, or a name of a graph."""
    if rehashed and rng.random() < 0.5:
        _edit_graph(bundle, rng.choice(GRAPHS), rehashed, lambda m: _twice(m.graph, rng))
        return
    text = (bundle / MANIFEST).read_text()
    lines = [line for line in re.findall(r'"\w+": [^{\[\n]+', text) if line.endswith(",")]
    line = rng.choice(lines)
    _write(bundle, text.replace(line, f"{line} {line}", 1), rehashed)


def deep_json(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """Nest a value of the manifest ten thousand deep, or a graph's graphs."""
    if rehashed and rng.random() < 0.2:
        _append_to_graph(bundle, STEP, _deep_node(rng.choice(["If", "Add"]), 2_000))
        return
    text = (bundle / MANIFEST).read_text()
    opening, closing = rng.choice([("[", "]"), ('{"a": ', "}")])
    deep = opening * DEEP + "0" + closing * DEEP
    found = rng.choice(list(re.finditer(r'(?<=": )[^{\[\n,]+', text)))
    _write(bundle, text[: found.start()] + deep + text[found.end() :], rehashed)


def escape(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """Make a file a link, or put it or its data elsewhere."""
    name = rng.choice(GRAPHS)
    outside = bundle.parent / "outside"
    way = rng.randrange(6 if rehashed else 5)
    if way == 5:
        _edit_graph(bundle, name, rehashed, lambda m: _outside(m.graph, rng))
        return
    if way in (0, 1):
        shutil.move(bundle / name, outside)
        os.symlink(outside, bundle / name) if way == 0 else os.link(outside, bundle / name)
        return
    if way == 2:  # the manifest itself
        shutil.move(bundle / MANIFEST, outside)
        os.symlink(outside, bundle / MANIFEST)
        return
    if way == 3:
        (bundle / "inner").mkdir()
        shutil.move(bundle / name, bundle / "inner" / name)
    else:
        shutil.move(bundle / name, bundle.parent / name)
    listed = f"inner/{name}" if way == 3 else rng.choice([f"../{name}", str(bundle.parent / name)])
    _edit(bundle, rehashed, lambda m: m["files"].update({listed: m["files"].pop(name)}))


def wild_sizes(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """Make a dimension, or a count of levels or steps, huge or negative."""
    size = rng.choice(_SIZES)
    if rehashed and rng.random() < 0.6:
        # protobuf's own library takes no more than 64 bits
        wild = max(min(size, 2**63 - 1), -(2**63)) or 2**31
        _edit_graph(bundle, rng.choice(GRAPHS), rehashed, lambda m: _resize(m.graph, rng, wild))
        return

    def change(manifest: dict[str, Any]) -> None:
        spec = manifest["spec"]
        rng.choice([
            lambda: spec["shape"].__setitem__(rng.randrange(3), size),
            lambda: spec.update(shape=[size]),
            lambda: spec["schedule"].update(steps=size),
            lambda: manifest["program"]["arguments"].update(steps=size),
            lambda: spec.update(classes=size or -1),
        ])()  # fmt: skip

    _edit(bundle, rehashed, change)


def wrong_names(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """Rename a tensor of a graph, either as it is made or as it is used."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        named = [*graph.input, *graph.output, *graph.initializer]
        if rng.random() < 0.5:
            rng.choice(named).name += rng.choice(["x", "_", " ", "\n", "é"])
        else:
            node = rng.choice([node for node in graph.node if node.input])
            node.input[rng.randrange(len(node.input))] = f"nothing{rng.random()}"

    _edit_graph(bundle, rng.choice(GRAPHS), rehashed, change)


def nan_weights(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """Make a weight NaN or infinite."""

    def change(model: onnx.ModelProto) -> None:
        weights = model.graph.initializer
        tensor = rng.choice([t for t in weights if t.data_type == TensorProto.FLOAT])
        values = numpy_helper.to_array(tensor).copy()
        values.reshape(-1)[rng.randrange(values.size)] = rng.choice([np.nan, np.inf, -np.inf])
        tensor.raw_data = values.tobytes()

    _edit_graph(bundle, rng.choice(GRAPHS), rehashed, change)


def wild_values(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """Give the manifest a range, a scale, a count or a digest that cannot be."""
    name = rng.choice([name for name in _SANE if name != "digest" or not rehashed])
    value = rng.choice([value for value in _WILD if not _SANE[name](value)])
    place = (lambda m: m) if name == "digest" else (lambda m: m["spec"])
    _edit(bundle, rehashed, lambda m: place(m).update({name: value}))


def hidden(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """Add a field that some parsers see and others skip, or write one in a longer form."""
    path = bundle / rng.choice(GRAPHS)
    file = taken_apart(path.read_bytes())
    parts, index, _ = rng.choice(list(file.all()))
    part = parts[index]
    way = rng.randrange(4)
    if way == 0:
        wide = rng.choice(WIDE)
        unseen = Part(1, BYTES, rng.randbytes(4), tag=lambda key: varint(key | wide << 3))
        parts.insert(index, unseen)
    elif way == 1:
        parts.insert(index, Part(rng.randrange(100, 20_000), BYTES, rng.randbytes(4)))
    elif way == 2:
        number = rng.randrange(1, 30)
        part.before, part.after = varint(number << 3 | 3), varint(number << 3 | 4)
    else:
        longer = rng.choice((1, 2, 4))
        part.tag = lambda key: varint(key, longer)
    path.write_bytes(file.written())
    _make_digests(bundle, rehashed)


def lie(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """Give an output other sizes than the graph says."""
    name, change = LIES[rng.choice([lie for lie in LIES if lie not in _TRUE_OF_ONE])]
    _edit_graph(bundle, name, rehashed, lambda model: change(model.graph))


def bomb(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """Let a few bytes of a graph make terabytes when a runtime loads it, or when it runs."""
    operator = rng.choice(list(_BOMBS))

    def change(model: onnx.ModelProto) -> None:
        inputs = []
        for value in _BOMBS[operator]:
            inputs.append(f"bomb_{len(inputs)}")
            array = np.array(value, np.int64)
            model.graph.initializer.append(numpy_helper.from_array(array, inputs[-1]))
        model.graph.node.append(helper.make_node(operator, inputs, ["bomb"]))

    _edit_graph(bundle, rng.choice(GRAPHS), rehashed, change)


WAYS: Final[dict[str, Callable[[Path, random.Random, bool], None]]] = {
    way.__name__: way
    for way in (
        *(truncation, bit_flip, size_lie, type_confusion, duplicate_keys, deep_json, escape),
        *(wild_sizes, wrong_names, nan_weights, wild_values, hidden, lie, bomb),
    )
}


def _make_digests(bundle: Path, rehashed: bool) -> None:
    """Make the digests of all files anew, as an attacker would."""
    if rehashed:
        manifest = read_json(bundle / MANIFEST)
        write_manifest(bundle, {**manifest, "files": file_entries(bundle)})


def _write(bundle: Path, text: str, rehashed: bool) -> None:
    """Write the manifest's text; to hash it anew, with the digest that it should have."""
    found = _DIGEST.findall(text)
    if rehashed and found:
        digest = hashlib.sha256(text.replace(found[-1], "0" * 64).encode()).hexdigest()
        text = _DIGEST.sub(digest, text)
    (bundle / MANIFEST).write_bytes(text.encode())


def _edit(bundle: Path, rehashed: bool, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = read_json(bundle / MANIFEST)
    change(manifest)
    if rehashed:
        write_manifest(bundle, manifest)
    else:
        (bundle / MANIFEST).write_text(json.dumps(manifest, indent=2))


def _edit_graph(
    bundle: Path, name: str, rehashed: bool, change: Callable[[onnx.ModelProto], None]
) -> None:
    model = onnx.load(bundle / name)
    change(model)
    (bundle / name).write_bytes(model.SerializeToString())
    _make_digests(bundle, rehashed)


def _typed(manifest: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Return the places of the manifest whose type is given: all but free arguments."""
    found: list[tuple[dict[str, Any], str]] = []

    def walk(value: dict[str, Any]) -> None:
        for key, inner in value.items():
            found.append((value, key))
            if isinstance(inner, dict) and key != "arguments":
                walk(inner)

    walk(manifest)
    # What may be none, or any number, is no confusion.
    free = ("data_range", "timestep_scale", "timestep_start", "sigma_data")
    numbers = ("beta_start", "beta_end", "digest")
    return [(place, key) for place, key in found if key not in (*free, *numbers)]


def _confuse(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = model.graph
    other = rng.choice([TensorProto.STRING, TensorProto.BOOL, TensorProto.COMPLEX64, 99, 0])
    if rng.random() < 0.5:
        value = rng.choice([*graph.input, *graph.output])
        value.type.tensor_type.elem_type = other
    else:
        rng.choice(graph.initializer).data_type = other


def _twice(graph: onnx.GraphProto, rng: random.Random) -> None:
    repeated: Any = rng.choice([graph.initializer, graph.node, graph.input, graph.output])
    repeated.append(rng.choice(repeated))


def _outside(graph: onnx.GraphProto, rng: random.Random) -> None:
    tensor = rng.choice(graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = rng.choice(["../outside", "/etc/passwd", "a/../../outside", STEP])
    tensor.external_data.append(onnx.StringStringEntryProto(key="location", value=place))


def _resize(graph: onnx.GraphProto, rng: random.Random, size: int) -> None:
    tensors = [tensor for tensor in graph.initializer if tensor.dims]
    values = [value for value in [*graph.input, *graph.output] if value.type.tensor_type.shape.dim]
    if rng.random() < 0.5:
        dims = rng.choice(tensors).dims
        dims[rng.randrange(len(dims))] = size
    else:
        rng.choice(list(rng.choice(values).type.tensor_type.shape.dim)).dim_value = size


def _deep_node(operator: str, depth: int) -> bytes:
    """Return a node of a graph that holds a graph that holds a node, and so on."""
    node = helper.make_node(operator, ["x"], ["y"]).SerializeToString()
    for _ in range(depth):
        graph = _field(1, node)
        attribute = _field(1, b"body") + _field(6, graph) + b"\xa0\x01\x05"
        node = _field(5, attribute) + _field(4, operator.encode())
    return node


def _append_to_graph(bundle: Path, name: str, node: bytes) -> None:
    """Append a node to a graph by its bytes, which the library could not read."""
    model = onnx.load(bundle / name)
    graph = model.graph.SerializeToString() + _field(1, node)
    model.ClearField("graph")
    (bundle / name).write_bytes(model.SerializeToString() + _field(7, graph))
    _make_digests(bundle, True)


def _field(number: int, data: bytes) -> bytes:
    return Part(number, BYTES, data).written()
