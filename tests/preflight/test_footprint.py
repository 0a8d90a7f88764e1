"""A graph's memory is added up node by node; a graph of unknown sizes is refused."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pytest

from difftool.errors import ArtefactError
from difftool.preflight.parts import Graph, Node, Tensor, Value
from difftool.preflight.shapes import Footprint, infer
from tests.oracles.single import Single
from tests.preflight.operators import CASES

LIMIT: Final = 1 << 30
JUNK: Final = (
    -1, 0, 2**40, -(2**63), 1.5, float("nan"), "word", "...", (), (-1,), (0, 0), (2**63 - 1,) * 40,
    (1.5,), ("word",), Graph(), Tensor("t", 1, (1,), 4), Tensor("t", 99, (2, 2), 4),
)  # fmt: skip
SIZES: Final = {"x": (10, 4)}
SHAPES: Final = ((), (0,), (1,), (3,), (2, 3), (1, 4, 1, 7), (2**31 - 1,) * 3, (2,) * 16)


def node(operator: str, inputs: str, outputs: str, domain: str = "") -> Node:
    return Node(operator, domain, "", tuple(inputs.split()), tuple(outputs.split()), {})


def graph(*nodes: Node, opset: int = 18, **constants: Tensor) -> Graph:
    """Return a graph of x float32 [n, 4], whose output is y."""
    x = Value(1, (None, 4))
    return Graph({"x": x}, {"y": Value(1, (None, 4))}, constants, nodes, {"": opset})


def refusal(found: Graph, limit: int = LIMIT, sizes: Mapping[str, Any] = SIZES) -> ArtefactError:
    """Return how a graph is refused."""
    with pytest.raises(ArtefactError) as caught:
        infer(found, sizes, limit=limit)
    return caught.value


X: Final = 10 * 4 * 4  # bytes of x [10, 4]
WEIGHT: Final = Tensor("w", 1, (4, 100), 1600)


@pytest.mark.parametrize(
    ("nodes", "at_once"),
    [
        ("Neg x a, Neg a b, Neg b c, Neg c y", 3),  # x, b and c
        ("Neg x a, Neg a b, Neg b c, Add c,a y", 4),  # x, a, b and c
        ("Neg x a, Neg x b, Neg x y", 2),  # what nothing takes goes at once
        ("Identity x y", 2),
        ("Neg x y, Neg y a, Neg a b, Neg b c", 4),  # y stays
    ],
)
def test_values_count_while_they_are_needed(nodes: str, at_once: int) -> None:
    made = []
    for line in nodes.split(", "):
        operator, inputs, output = line.split()
        made.append(node(operator, inputs.replace(",", " "), output))
    assert infer(graph(*made), SIZES, limit=LIMIT).peak == at_once * X


def test_constants_and_what_is_made_of_them_count_always_and_in_full() -> None:
    nodes = (
        node("Neg", "w", "a"), node("Neg", "a", "b"), node("MatMul", "x b", "c"),
        node("Neg", "c", "y"),
    )  # fmt: skip
    made = 10 * 100 * 4
    assert infer(graph(*nodes, w=WEIGHT), SIZES, limit=LIMIT) == Footprint(
        peak=X + 3 * 1600 + 2 * made,
        largest=("c", made),
        outputs={"y": (10, 100)},
        folded=2 * 1600,
    )


def test_what_depends_on_sizes_alone_is_constant() -> None:
    """OpenVINO computes it when it compiles a graph for sizes."""
    nodes = (node("Shape", "x", "s"), node("ConstantOfShape", "s", "y"))
    assert infer(graph(*nodes), SIZES, limit=LIMIT).folded == 16 + X


def test_the_limit_is_that_of_the_peak() -> None:
    found = graph(node("MatMul", "x w", "c"), node("Neg", "c", "y"), w=WEIGHT)
    peak = infer(found, SIZES, limit=LIMIT).peak
    infer(found, SIZES, limit=peak)
    for limit in (peak - 1, 1601, 1):
        assert refusal(found, limit).code == "graph-memory"


def test_sizes_are_those_of_the_call() -> None:
    found = graph(node("Neg", "x", "y"))
    assert infer(found, {"x": (0, 4)}, limit=LIMIT).outputs == {"y": (0, 4)}
    wrong = [{"x": shape} for shape in ((10, 5), (10,), (-1, 4), (2**40, 4))]
    for sizes in (*wrong, {}):
        assert refusal(found, 1 << 62, sizes).code == "graph-shape"


@pytest.mark.parametrize(
    ("code", "said", "nodes"),
    [
        ("graph-operator", "Loop", [node("Loop", "x", "y")]),
        ("graph-operator", "If", [node("If", "x", "y")]),
        ("graph-operator", "RandomNormalLike", [node("RandomNormalLike", "x", "y")]),
        ("graph-operator", "Upsample", [node("Upsample", "x w", "y")]),
        ("graph-operator", "Neg", [node("Neg", "x", "y", "com.microsoft")]),
        ("graph-operator", "Neg", [node("Neg", "x", "y", "elsewhere")]),
        ("graph-operator", r"'\x1b[2J'", [node("\x1b[2J", "x", "y")]),
        ("graph-shape", "depend on its data", [node("NonZero", "x", "y")]),
        ("graph-shape", "not a list of whole numbers", [node("Reshape", "x x", "y")]),
        (
            "graph-shape",
            "depend on its data",
            [Node("ArgMax", "", "", ("x",), ("i",), {"keepdims": 0}), node("Expand", "w i", "y")],
        ),
        ("graph-names", "nothing before it makes", [node("Neg", "a", "y"), node("Neg", "x", "a")]),
        ("graph-names", "a second time", [node("Neg", "x", "y"), node("Neg", "x", "y")]),
        ("graph-names", "a second time", [node("Neg", "x", "x")]),
        ("graph-names", "a second time", [node("Dropout", "x", "y y")]),
        ("graph-names", "nothing makes its output", [node("Neg", "x", "z")]),
        ("graph-shape", "gives 1 outputs, not 2", [node("Neg", "x", "y z")]),
        ("graph-shape", "lacks its input 1", [node("Add", "x", "y")]),
        # A type that no model has.
        ("graph-shape", "", [Node("Cast", "", "", ("x",), ("y",), {"to": 8})]),
    ],
)
def test_what_cannot_be_known_is_refused(code: str, said: str, nodes: list[Node]) -> None:
    error = refusal(graph(*nodes, w=WEIGHT))
    assert error.code == code
    assert said in error.message


def test_other_opsets_are_refused() -> None:
    for opset in (0, 12, 29):
        found = graph(node("Neg", "x", "y"), opset=opset)
        assert refusal(found).code == "graph-operator"


def test_sizes_are_followed_no_further_than_allowed() -> None:
    """A long chain of small numbers ends with numbers that are not known."""
    shape = Tensor("s", 7, (1024,), 8192, np.ones(1024, np.int64))
    chain = [node("Neg", "s" if i == 0 else f"t{i - 1}", f"t{i}") for i in range(1100)]
    found = graph(*chain, node("Expand", "w t1099", "y"), s=shape, w=WEIGHT)
    assert "depend on its data" in refusal(found).message


def test_hostile_nodes_end_in_one_line() -> None:
    """Whatever stands in attributes and sizes, a node is judged or refused, and nothing else."""
    rng = np.random.default_rng(2)
    said = [verdict(case, rng) for case in CASES for _ in range(12)]
    assert {error.code for error in said if error} == {"graph-shape", "graph-memory"}
    assert said.count(None) > len(CASES)
    assert max(len(error.message) for error in said if error) < 400


def verdict(case: Single, rng: np.random.Generator) -> ArtefactError | None:
    """Return how a case is refused with random attributes and inputs, if it is."""
    names = {*case.attributes, "axis", "axes", "strides", "pads", "group", "value", "to"}
    attributes = {
        **case.attributes,
        **{name: JUNK[rng.integers(len(JUNK))] for name in sorted(names) if rng.random() < 0.15},
    }
    constants = {f"c{index}": constant(f"c{index}", rng) for index in range(len(case.inputs))}
    outputs = tuple(f"o{index}" for index in range(case.outputs))
    made = Node(case.operator, case.domain, "", tuple(constants), outputs, attributes)
    try:
        infer(Graph({}, {}, constants, (made,), {"": case.opset}), {}, limit=1 << 120)
    except ArtefactError as error:
        return error
    return None


def constant(name: str, rng: np.random.Generator) -> Tensor:
    """Return a tensor of random sizes and numbers."""
    dims, kind = SHAPES[rng.integers(len(SHAPES))], (1, 7, 9, 10)[rng.integers(4)]
    if kind == 10 or np.prod(dims, dtype=object) > 16 or rng.random() < 0.3:
        return Tensor(name, kind, dims, 0)
    numbers = rng.choice([-1, 0, 1, 2, 2**31, 2**62], int(np.prod(dims)))
    return Tensor(name, kind, dims, 0, numbers * 1.5 if kind == 1 else numbers)
