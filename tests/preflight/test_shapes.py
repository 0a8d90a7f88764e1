"""Each rule gives the types and sizes that the onnx package and the runtimes give."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import numpy as np
import pytest

from difftool.errors import ArtefactError
from difftool.preflight.shapes.table import CONTRIBUTED, RULES
from tests.oracles.single import Fixed, Single, fixed, image, scalar
from tests.preflight.operators import CASES

T = TypeVar("T")
Draw = Callable[..., Any]

RANDOM: Final = 60  # cases of each operator


def asked(oracle: Callable[[], list[T]]) -> list[T]:
    """Ask an oracle; nothing if it lacks the operator, or refuses the sizes."""
    try:
        return oracle()
    except Exception:  # the errors of oracles share no base of their own
        return []


def test_every_rule_has_a_case() -> None:
    assert {case.operator for case in CASES if not case.domain} == set(RULES)
    assert {case.operator for case in CASES if case.domain} == set(CONTRIBUTED)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_types_and_sizes_are_those_of_the_oracles(case: Single) -> None:
    said = [asked(oracle) for oracle in (case.of_onnx, case.of_reference, case.of_runtime)]
    answers, found = [answer for answer in said if answer], case.inferred()
    assert answers, "no oracle knows this"
    assert answers == [found] * len(answers)
    assert asked(case.of_openvino) in ([], [shape for _, shape in found])


def window(draw: Draw) -> dict[str, Any]:
    """Attributes of a window over two axes."""
    settings: dict[str, Any] = {"strides": draw(1, 4, 2)}
    if draw(0, 2):
        settings["dilations"] = draw(1, 3, 2)
    auto = ("NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")[draw(0, 5)]
    if auto != "NOTSET":
        settings["auto_pad"] = auto
    elif draw(0, 2):
        settings["pads"] = draw(0, 3, 4)
    return settings


def picture(draw: Draw) -> Any:
    return image(draw(0, 3), 4, draw(1, 9), draw(1, 9))


def conv(draw: Draw) -> Single:
    group = draw(1, 3)
    weight = image(6, 4 // group, *draw(1, 5, 2))
    return Single("Conv", [picture(draw), weight], {**window(draw), "group": group})


def conv_transpose(draw: Draw) -> Single:
    settings = window(draw)
    if not draw(0, 3):
        settings["output_padding"] = [min(s - 1, draw(0, 2)) for s in settings["strides"]]
    return Single("ConvTranspose", [picture(draw), image(4, 3, *draw(1, 5, 2))], settings)


def pool(draw: Draw) -> Single:
    settings = {**window(draw), "kernel_shape": draw(1, 5, 2), "ceil_mode": draw(0, 2)}
    return Single(("MaxPool", "AveragePool", "LpPool")[draw(0, 3)], [picture(draw)], settings, 22)


def cut(draw: Draw) -> Single:
    count = draw(1, 3)
    starts, ends = fixed(*draw(-12, 12, count)), fixed(*draw(-12, 12, count))
    steps = fixed(*(step or 1 for step in draw(-3, 4, count)))
    return Single("Slice", [picture(draw), starts, ends, fixed(*range(2, 2 + count)), steps])


def scaled(draw: Draw) -> Single:
    scales = fixed(1, 1, *(draw(20, 300) / 100 for _ in range(2)), kind=np.float32)
    return Single("Resize", [picture(draw), None, scales], {"mode": "linear"})


def parted(draw: Draw) -> Single:
    count = draw(1, 5)
    return Single("Split", [image(draw(0, 9))], {"num_outputs": count}, outputs=count)


DRAWN: Final[Mapping[str, Callable[[Draw], Single]]] = {
    "conv": conv,
    "conv_transpose": conv_transpose,
    "pool": pool,
    "reshape": lambda draw: Single(
        "Reshape",
        [image(*draw(0, 4, draw(1, 4))), fixed(*draw(-1, 5, draw(1, 4)))],
        {"allowzero": draw(0, 2)},
    ),
    "slice": cut,
    "pad": lambda draw: Single("Pad", [picture(draw), fixed(*draw(-2, 3, 8))]),
    "expand": lambda draw: Single(
        "Expand", [image(*draw(0, 3, draw(1, 4))), fixed(*draw(0, 3, draw(1, 4)))]
    ),
    "resize by scales": scaled,
    "resize to sizes": lambda draw: Single(
        "Resize", [picture(draw), None, None, fixed(*draw(1, 12, 2))], {"axes": [2, 3]}
    ),
    "range": lambda draw: Single("Range", [scalar(bound) for bound in draw(-20, 20, 3)]),
    "range of reals": lambda draw: Single(
        "Range", [scalar(bound / 10, np.float32) for bound in draw(-30, 30, 3)]
    ),
    "matmul": lambda draw: Single("MatMul", [image(*draw(1, 4, draw(1, 4))) for _ in range(2)]),
    "add": lambda draw: Single("Add", [image(*draw(0, 3, draw(1, 4))) for _ in range(2)]),
    "split": parted,
}


@pytest.mark.parametrize("drawn", DRAWN.values(), ids=DRAWN)
def test_random_sizes_are_those_of_the_runtimes(drawn: Callable[[Draw], Single]) -> None:
    """Cases that both can compute have the same sizes; nothing runs what ONNX Runtime refuses."""
    rng = np.random.default_rng(0)

    def draw(low: int, high: int, count: int | None = None) -> Any:
        return rng.integers(low, high, count).tolist()

    compared = 0
    for _ in range(RANDOM):
        case = drawn(draw)
        made, found = asked(case.inferred), asked(case.of_runtime)
        if made and found:
            compared += 1
            assert made == found, case
            assert asked(case.of_openvino) in ([], [shape for _, shape in made]), case
    assert compared > RANDOM // 5


WHOLE: Final[Mapping[str, int]] = {
    "Abs": 1, "Add": 2, "And": 2, "Div": 2, "Equal": 2, "Greater": 2, "GreaterOrEqual": 2,
    "Less": 2, "LessOrEqual": 2, "Max": 3, "Min": 3, "Mod": 2, "Mul": 2, "Neg": 1, "Not": 1,
    "Or": 2, "Pow": 2, "ReduceMax": 1, "ReduceMin": 1, "ReduceProd": 1, "ReduceSum": 1, "Sign": 1,
    "Sub": 2, "Xor": 2,
}  # fmt: skip
LOGIC: Final = ("And", "Not", "Or", "Xor")


def computed(case: Single) -> None:
    """The numbers that preflight follows are those that ONNX Runtime computes."""
    for known, value in zip(case.walked(), case.run(), strict=True):
        assert known.numbers is not None, case
        assert known.constant
        np.testing.assert_array_equal(known.numbers, value.numpy(), err_msg=repr(case))


@pytest.mark.parametrize("operator", WHOLE)
def test_whole_numbers_are_computed_as_the_runtime_does(operator: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        kind = np.bool_ if operator in LOGIC else np.int64
        inputs = [fixed(*rng.integers(-9, 9, 6), kind=kind) for _ in range(WHOLE[operator])]
        if operator in ("Div", "Mod"):
            inputs[1][inputs[1] == 0] = 5
        if operator == "Div":
            inputs = [abs(x).view(Fixed) for x in inputs]
        if operator == "Pow":
            inputs[1] = abs(inputs[1]).view(Fixed)
        computed(Single(operator, inputs))


NUMBERS: Final = fixed(3, 1, 4, 1, 5, 9)
REALS: Final = fixed(-2.5, -0.5, 0.0, 0.5, 1.5, 3.7, kind=np.float32)
TABLE: Final = fixed([1, 2, 3], [4, 5, 6])


@pytest.mark.parametrize(
    "case",
    [
        Single("Cast", [REALS], {"to": 7}),
        Single("Cast", [REALS], {"to": 9}),
        Single("Cast", [NUMBERS], {"to": 1}),
        Single("Cast", [NUMBERS], {"to": 6}),
        Single("Ceil", [REALS]),
        Single("Floor", [REALS]),
        Single("Round", [REALS]),
        Single("Mul", [REALS, REALS]),
        Single("Div", [NUMBERS.astype(np.float32), scalar(3, np.float32)]),
        Single("Div", [fixed(-8, 8, -8, -7), fixed(2, -4, -8, -2)]),
        Single("Clip", [NUMBERS, scalar(2), scalar(4)]),
        Single("Concat", [NUMBERS, fixed(7)], {"axis": 0}),
        Single("Constant", [], {"value_ints": [3, 4]}),
        Single("Constant", [], {"value_float": 2.5}),
        Single("ConstantOfShape", [fixed(2, 2)]),
        Single("Expand", [fixed(7), fixed(2, 3)]),
        Single("Flatten", [TABLE], {"axis": 0}),
        Single("Gather", [TABLE, fixed(-1, 0)], {"axis": 1}),
        Single("Identity", [TABLE]),
        Single("NonZero", [fixed([0, 2], [1, 0])]),
        Single("Range", [scalar(9), scalar(0), scalar(-2)]),
        Single("ReduceSum", [TABLE, fixed(1)], {"keepdims": 0}),
        Single("ReduceProd", [TABLE, fixed(0)]),
        Single("Reshape", [TABLE, fixed(3, 2)]),
        Single("ScatterND", [NUMBERS, fixed([1], [4]), fixed(0, 0)]),
        Single("Slice", [NUMBERS, fixed(-1), fixed(-9), fixed(0), fixed(-2)]),
        Single("Slice", [TABLE, fixed(1), fixed(9), fixed(1)]),
        Single("Split", [TABLE, fixed(1, 2)], {"axis": 1}, outputs=2),
        Single("Split", [TABLE, fixed(1, 2)], {"axis": -1}, outputs=2),
        Single("Squeeze", [fixed([3])]),
        Single("Sum", [TABLE.astype(np.float32)] * 3),
        Single("Tile", [NUMBERS, fixed(2)]),
        Single("Transpose", [TABLE]),
        Single("Unsqueeze", [NUMBERS, fixed(1)]),
        Single("Where", [fixed(1, 0, kind=np.bool_), fixed(3, 4), fixed(5)]),
        Single("Shape", [TABLE]),
        Single("Size", [TABLE]),
    ],
    ids=repr,
)
def test_numbers_are_those_of_the_runtime(case: Single) -> None:
    computed(case)


@pytest.mark.parametrize(
    "case",
    [
        Single("Add", [fixed(2**62), fixed(2**62)]),
        Single("Add", [fixed(2**31 - 1, kind=np.int32), fixed(1, kind=np.int32)]),
        Single("Sub", [fixed(1, kind=np.uint32), fixed(2, kind=np.uint32)]),
        Single("Mul", [fixed(2**40), fixed(2**40)]),
        Single("Pow", [fixed(10), fixed(40)]),
        Single("Pow", [fixed(3), fixed(39)]),
        Single("Pow", [fixed(-1), fixed(2**53 + 1)]),
        Single("Div", [fixed(1), fixed(0)]),
        Single("Div", [fixed(5), fixed(-(2**63))]),
        Single("Div", [fixed(-7), fixed(3)]),
        Single("Mod", [fixed(2**53 + 1), fixed(-3)]),
        Single("Mod", [fixed(1), fixed(0)]),
        Single("ReduceProd", [fixed(*[10] * 30)]),
        Single("ReduceProd", [fixed(3, 3**38)]),
        Single("ReduceSum", [fixed(2**61, 2**60, 3)]),
        Single("Cast", [fixed(1e30, kind=np.float32)], {"to": 7}),
        Single("Cast", [fixed(300)], {"to": 2}),
        Single("Gather", [fixed(1, 2), scalar(9)]),
    ],
    ids=repr,
)
def test_numbers_that_runtimes_may_compute_differently_are_not_known(case: Single) -> None:
    assert [value.numbers for value in case.walked()] == [None]


@pytest.mark.parametrize(
    "case",
    [
        Single("MatMul", [image(2, 3), image(4, 2)]),
        Single("Gemm", [image(2, 3), image(3, 4), image(9, 4)]),
        Single("Add", [image(2, 3), image(4)]),
        Single("Conv", [image(1, 3, 8, 8), image(4, 2, 3, 3)]),
        Single("Conv", [image(1, 2, 2, 2), image(4, 2, 3, 3)]),
        Single("Conv", [image(1, 2, 8, 8), image(1, 2, 3, 3), image(1000)]),
        Single("Concat", [image(2, 3), image(3, 4)], {"axis": 0}),
        Single("Reshape", [image(2, 3), fixed(-1, -1)]),
        Single("Reshape", [image(2, 3), fixed(4, -1)]),
        Single("Squeeze", [image(2, 3), fixed(0)]),
        Single("Transpose", [image(2, 3)], {"perm": [0, 0]}),
        Single("Split", [image(5), fixed(2, 2)], outputs=2),
        Single("LayerNormalization", [image(2, 3), image(100, 1, 1)]),
        Single("PRelu", [image(3), image(1000, 3)]),
        Single("Clip", [image(3), image(1000, 3)]),
        Single("DequantizeLinear", [image(3, kind=np.uint8), image(1000, 3)]),
        Single("Softmax", []),
        Single("Gather", [image(3), scalar(0)], {"axis": 2}),
        Single("Slice", [image(3), fixed(0), fixed(1), fixed(0), fixed(0)]),
        Single("ConstantOfShape", [fixed(-1)]),
        Single("Range", [scalar(0), scalar(1), scalar(0)]),
        Single("TopK", [image(3), fixed(4)], outputs=2),
        Single("Einsum", [image(2, 3), image(4, 5)], {"equation": "ij,jk->ik"}),
        Single("Einsum", [image(2, 3)], {"equation": "ij->ik"}),
        # ONNX Runtime and OpenVINO make different sizes of these.
        *(
            Single(f"Reduce{name}", [image(2, 3)], {"axes": [1], "keepdims": 0}, 13)
            for name in ("L1", "LogSum", "LogSumExp")
        ),
        Single("Flatten", [image(0, 0)], {"axis": 2}),
        Single("Squeeze", [image(2, 1), fixed(kind=np.int64)]),
        Single("Unsqueeze", [image(2), fixed(kind=np.int64)]),
        *(
            Single("Slice", [image(3), fixed(2), fixed(2**bits - 1), fixed(0), fixed(-1)])
            for bits in (31, 63)
        ),
        *(
            Single(
                "Resize",
                [image(1, 1, 6, 8), None, None, fixed(5, 5)],
                {"axes": [2, 3], "keep_aspect_ratio_policy": policy},
            )
            for policy in ("not_larger", "not_smaller")
        ),
        *(
            Single(name, [image(2, 4, 6, 6)], {"kernel_shape": [3, 2], "ceil_mode": 1, **more}, 22)
            for name in ("AveragePool", "MaxPool", "LpPool")
            for more in (
                {"strides": [4, 4], "pads": [0, 1, 1, 1]},
                {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
            )
        ),
    ],
    ids=repr,
)
def test_sizes_that_do_not_fit_are_refused(case: Single) -> None:
    with pytest.raises(ArtefactError) as caught:
        case.walked()
    assert caught.value.code == "graph-shape"
    assert "\n" not in caught.value.message
    assert caught.value.hint
