"""A graph that TensorRT cannot take is refused, with the reasons, before anything is built."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from difftool.bundle import STEP
from difftool.compile.engine.preflight import problems, refuse
from difftool.errors import ArtefactError
from difftool.runtime.variants import Variant, open_variant


@pytest.fixture(scope="module")
def supports() -> object:
    """The operators of the real parser."""
    variant: Variant = open_variant("tensorrt-rtx")
    trt = variant.module
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    # The parser does not keep what it was made of alive.
    return lambda name, _alive=(logger, builder, network): parser.supports_operator(name)


def test_a_step_graph_has_no_problem(tiny_bundle: Path, supports: object) -> None:
    assert problems(onnx.load(tiny_bundle / STEP), supports) == []


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (("BitShift", ["x", "x"], {"direction": "LEFT"}), "TensorRT has no bitwise operators"),
        (("BitwiseXor", ["x", "x"], {}), "TensorRT has no bitwise operators"),
        (("Unique", ["x"], {}), "TensorRT has no such operator"),
        (("RandomNormalLike", ["x"], {"seed": 1.0}), "TensorRT ignores its seed"),
        (("Cast", ["x"], {"to": TensorProto.DOUBLE}), "TensorRT has no DOUBLE"),
        (("Cast", ["x"], {"to": TensorProto.UINT64}), "TensorRT has no UINT64"),
        (("FusedConv", ["x"], {"domain": "com.microsoft"}), "its domain com.microsoft is not"),
    ],
)
def test_a_node_that_cannot_be_taken_has_a_reason(
    node: tuple[str, list[str], dict[str, object]], reason: str, supports: object
) -> None:
    name, inputs, attributes = node
    model = _model([helper.make_node(name, inputs, ["y"], name="culprit", **attributes)])
    found = problems(model, supports)
    assert len(found) == 1
    assert found[0].startswith(f"node culprit ({name}): {reason}")


def test_nodes_inside_of_nodes_are_seen(supports: object) -> None:
    node = helper.make_node("BitwiseNot", ["x"], ["z"], name="deep")
    result = helper.make_tensor_value_info("z", TensorProto.INT32, [1])
    inner = helper.make_graph([node], "branch", [], [result])
    condition = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    reason = "TensorRT has no bitwise operators; draw the noise outside of the graph"
    found = problems(_model([condition]), supports)
    assert found == [f"node deep (BitwiseNot): {reason}"] * 2


def test_types_of_inputs_and_weights_are_seen(supports: object) -> None:
    weight = numpy_helper.from_array(np.zeros(1, np.uint16), "w")
    model = _model([helper.make_node("Identity", ["x"], ["y"])], TensorProto.DOUBLE, [weight])
    assert problems(model, supports) == [
        "input x has the unsupported type DOUBLE",
        "output y has the unsupported type DOUBLE",
        "weight w has the unsupported type UINT16",
    ]


def test_asymmetric_quantization_is_seen(supports: object) -> None:
    def quantized(zero: int) -> onnx.ModelProto:
        values = {"scale": np.float32(0.1), "zero": np.int8(zero)}
        weights = [numpy_helper.from_array(value, name) for name, value in values.items()]
        node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"], name="q")
        return _model([node], weights=weights)

    assert problems(quantized(0), supports) == []
    assert problems(quantized(3), supports) == [
        "node q (QuantizeLinear): its zero point is not 0; quantize it symmetrically"
    ]


def test_the_error_is_one_line_with_the_first_problems() -> None:
    refuse([], "TensorRT")
    with pytest.raises(ArtefactError) as caught:
        refuse([f"node {i} (Foo): no" for i in range(5)], "TensorRT")
    assert caught.value.message == (
        "TensorRT does not support this step graph: node 0 (Foo): no; node 1 (Foo): no; "
        "node 2 (Foo): no; and 2 more"
    )


def _model(
    nodes: list[onnx.NodeProto],
    kind: int = TensorProto.FLOAT,
    weights: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(name, kind, [1]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], weights or [])
    return helper.make_model(graph)
