"""Graphs of a kilobyte that would take gigabytes, each by another operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

GIB: Final = 1 << 30
LIMIT: Final = GIB
LONG: Final = 1 << 15


Node = tuple[str, str, str, dict[str, Any]]  # operator, inputs, outputs, attributes


@dataclass(frozen=True)
class Bomb:
    """Nodes that make more than LIMIT, and the constants that they take.

    Without `inputs` all of it is constant, and a runtime makes it when it opens the graph. `guard`
    is the operator whose rule sees it, by default the name's first word. The workspace of that
    operator sees what takes memory "on its way".
    """

    name: str
    nodes: Sequence[Node]
    constants: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    guarded_by: str = ""

    def __repr__(self) -> str:
        return self.name

    @property
    def guard(self) -> str:
        return self.guarded_by or self.name.split()[0]

    @property
    def space(self) -> bool:
        return self.name.endswith("on its way")

    def model(self) -> onnx.ModelProto:
        """The graph; its output is one number of what the last node makes."""
        nodes = [
            helper.make_node(operator, given.split(), made.split(), f"n{index}", **attributes)
            for index, (operator, given, made, attributes) in enumerate(self.nodes)
        ]
        nodes.append(helper.make_node("ReduceMax", ["big"], ["y"], keepdims=0))
        constants = {"one": np.ones(1, np.float32), **self.constants}
        graph = helper.make_graph(
            nodes,
            self.name,
            [helper.make_tensor_value_info(n, 1, shape) for n, shape in self.inputs.items()],
            [onnx.ValueInfoProto(name="y")],
            [numpy_helper.from_array(np.asarray(value), n) for n, value in constants.items()],
        )
        opset = helper.make_opsetid("", 23)
        return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def filled(name: str, size: str, of: str = "one") -> Node:
    """A constant of one number, repeated."""
    return ("Expand", f"{of} {size}", name, {})


def outer(operator: str, **attributes: Any) -> tuple[list[Node], dict[str, list[int]]]:
    """An operator that makes a matrix of a column and a row, both of them 128 KiB."""
    nodes = [filled("a", "down"), filled("b", "across"), (operator, "a b", "big", attributes)]
    return nodes, {"down": [LONG, 1], "across": [1, LONG]}


def doubled(operator: str, times: int = 29, **attributes: Any) -> list[Node]:
    """A chain of nodes each of which makes twice what it takes."""
    chain = [(operator, f"t{i} t{i}", f"t{i + 1}", attributes) for i in range(times - 1)]
    first, last = ("Identity", "one", "t0", {}), f"t{times - 1}"
    return [first, *chain, (operator, f"{last} {last}", "big", attributes)]


def numbers(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def gathered(operator: str) -> list[Node]:
    """An operator that takes the same row many times."""
    return [filled("a", "n"), filled("at", "m", "zero"), (operator, "a at", "big", {})]


NONE: Final = numbers()
BYTE: Final = np.ones(1, np.int8)
BYTES: Final = filled("a", "n", "byte")
AB: Final = (filled("a", "n"), filled("b", "m"))

BOMBS: Final = [
    Bomb("ConstantOfShape", [("ConstantOfShape", "n", "big", {})], {"n": [GIB]}),
    Bomb("Expand", [filled("big", "n")], {"n": [LONG, LONG]}),
    Bomb("Tile", [("Tile", "one n", "big", {})], {"n": [GIB]}),
    Bomb("Pad", [("Pad", "one n", "big", {})], {"n": [0, GIB]}),
    Bomb("Range", [("Range", "a b c", "big", {})], {"a": 0, "b": GIB, "c": 1}),
    Bomb(
        "Range of reals", [("Range", "a b c", "big", {})],
        {"a": np.float32(0), "b": np.float32(GIB), "c": np.float32(1)},
    ),
    Bomb(
        "OneHot", [("OneHot", "a n b", "big", {})], {"a": [0, 1], "n": GIB // 2, "b": numbers(0, 1)}
    ),
    Bomb(
        "Resize", [filled("a", "n"), ("Resize", "a none s", "big", {})],
        {"n": [1, 1, 1, 1], "none": NONE, "s": numbers(1, 1, LONG, LONG)},
    ),
    Bomb(
        "Resize to sizes", [filled("a", "n"), ("Resize", "a none none s", "big", {})],
        {"n": [1, 1, 1, 1], "none": NONE, "s": [1, 1, LONG, LONG]},
    ),
    Bomb("Concat", doubled("Concat", axis=0)),
    Bomb("MatMul", *outer("MatMul")),
    Bomb("Gemm", *outer("Gemm")),
    Bomb("Einsum", *outer("Einsum", equation="ij,jk->ik")),
    Bomb("Add", *outer("Add")),
    Bomb("Equal", *outer("Equal")),
    Bomb("Max", *outer("Max")),
    Bomb(
        "Where", [filled("a", "down"), filled("b", "across"), ("Where", "c a b", "big", {})],
        {"down": [LONG, 1], "across": [1, LONG], "c": np.ones(1, np.bool_)},
    ),
    Bomb(
        "ConvTranspose", [*AB, ("ConvTranspose", "a b", "big", {"strides": [GIB // 64]})],
        {"n": [1, 1, 64], "m": [1, 1, 1]},
    ),
    Bomb(
        "Conv", [*AB, ("Conv", "a b", "big", {"pads": [GIB // 2] * 2})],
        {"n": [1, 1, 64], "m": [1, 1, 1]},
    ),
    Bomb("Gather", gathered("Gather"), {"n": [1, LONG], "m": [LONG], "zero": [0]}),
    Bomb("GatherND", gathered("GatherND"), {"n": [1, LONG], "m": [LONG, 1], "zero": [0]}),
    Bomb("Cast", [BYTES, ("Cast", "a", "big", {"to": 11})], {"n": [GIB // 4], "byte": BYTE}),
    Bomb(
        "EyeLike", [BYTES, ("EyeLike", "a", "big", {"dtype": 11})],
        {"n": [LONG, LONG // 4], "byte": BYTE},
    ),
    Bomb(
        "DequantizeLinear", [BYTES, ("DequantizeLinear", "a s", "big", {})],
        {"n": [GIB // 4], "byte": BYTE, "s": np.float32(1)},
    ),
    Bomb("TopK", [filled("a", "n"), ("TopK", "a n", "big at", {})], {"n": [GIB // 8]}),
    Bomb(
        "GridSample", [*AB, ("GridSample", "a b", "big", {})],
        {"n": [1, 1024, 2, 2], "m": [1, 1024, 512, 2]},
    ),
    Bomb(
        "many of some size",
        [*[("ConstantOfShape", "n", f"t{i}", {}) for i in range(40)],
         ("Sum", " ".join(f"t{i}" for i in range(40)), "big", {})],
        {"n": [GIB // 128]}, guarded_by="ConstantOfShape",
    ),
    Bomb(
        "through shapes",
        [("Shape", "x", "s", {}), ("Mul", "s s", "t", {}), ("Mul", "t t", "u", {}),
         ("ConstantOfShape", "u", "big", {})],
        {}, {"x": (64, 64)}, guarded_by="ConstantOfShape",
    ),
    Bomb("MatMul of x", [filled("b", "n"), ("MatMul", "x b", "big", {})], {"n": [1, LONG]},
         {"x": (LONG, 1)}),
    Bomb("Expand of x", [filled("big", "n", "x")], {"n": [GIB // 8, 1]}, {"x": (1, 64)}),
    Bomb(
        "Einsum on its way",
        [filled("a", "n"), ("Einsum", "a a a a", "big", {"equation": "ab,cd,ac,bd->"})],
        {"n": [256, 256]},
    ),
    Bomb(
        "Attention on its way", [filled("a", "n"), ("Attention", "a a a", "big", {})],
        {"n": [1, 1, LONG, 8]},
    ),
    Bomb(
        "Resize on its way",
        [("Resize", "x none none n", "big", {"mode": "linear", "antialias": 1})],
        {"none": NONE, "n": [1, 1, 1, 2 * LONG]}, {"x": (1, 1, 2 * LONG, 1)},
    ),
    Bomb(
        "ConvInteger on its way",
        [BYTES, filled("b", "m", "byte"), ("ConvInteger", "a b", "c", {}),
         ("Cast", "c", "big", {"to": 1})],
        {"n": [1, 1, 1024, 1024], "m": [1, 1, 64, 64], "byte": np.ones(1, np.uint8)},
    ),
    Bomb(
        "ConvTranspose on its way",
        [*AB, ("ConvTranspose", "a b", "big", {"pads": [32, 32, 31, 31]})],
        {"n": [1, 1, 512, 512], "m": [1, 1, 64, 64]},
    ),
]  # fmt: skip
