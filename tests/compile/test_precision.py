"""Half precision in the step graph: where it is, where it is not, and what it costs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from difftool.bundle import CONDITIONER, STEP
from difftool.compile.precision import in_half
from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.columns import UNBOUNDED, Column
from difftool.diffusion.schedules import geometric
from difftool.errors import ArtefactError, UsageError
from difftool.export.onnx import export_step
from difftool.export.step import StepModule
from difftool.networks import build_network
from difftool.verify.bisect import values_inside
from tests.fixtures import POINTS_SPEC

HALF = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
STATISTICS = {"ReduceMean", "Softmax"}
SIGMA_MAX = 50.0

Feed = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def tiny_step(tiny_bundle: Path) -> onnx.ModelProto:
    return onnx.load(tiny_bundle / STEP)


@pytest.fixture(scope="module")
def tiny_feed(tiny_bundle: Path) -> Feed:
    """A row of DDPM for three samples, with the conditioning of three timesteps."""
    rng = np.random.default_rng(0)
    conditioner = onnxruntime.InferenceSession(tiny_bundle / CONDITIONER)
    x = rng.standard_normal((3, 1, 8, 8)).astype(np.float32)
    return _feed(x, conditioner.run(None, {"cond": np.array([1, 9, 18], np.float32)})[0])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_network_alone_is_half(tiny_step: onnx.ModelProto, precision: str) -> None:
    graph = in_half(tiny_step, precision).graph
    types = _types(graph)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == len([n for n in tiny_step.graph.node if n.op_type == "Conv"]) > 5
    for node in convolutions[:-1]:
        assert {types[name] for name in (*node.input, *node.output)} == {HALF[precision]}
    assert {types[name] for name in convolutions[-1].input} == {TensorProto.FLOAT}
    for node in graph.node:
        if node.op_type in STATISTICS:
            assert {types[name] for name in node.input[:1]} == {TensorProto.FLOAT}
    for old, new in ((tiny_step.graph.input, graph.input), (tiny_step.graph.output, graph.output)):
        assert list(old) == list(new)
    after = _after(graph, convolutions[-1].output[0])
    assert len(after) > 10
    assert {types[name] for node in after for name in node.output} == {TensorProto.FLOAT}


@pytest.mark.parametrize(("precision", "digits"), [("fp16", 11), ("bf16", 8)])
def test_half_differs_from_float32_by_its_rounding(
    tiny_step: onnx.ModelProto, tiny_feed: Feed, precision: str, digits: int
) -> None:
    exact, half = _exact_and_half(tiny_step, tiny_feed, precision)
    assert 0 < _error(exact, half) < 8 * 2.0**-digits
    assert half[0].dtype == np.float32
    assert np.array_equal(half[2], exact[2])


def test_a_network_of_linear_layers_can_be_half(points_bundle: Path) -> None:
    model = onnx.load(points_bundle / STEP)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 2)).astype(np.float32)
    feed = _feed(x, rng.standard_normal((3, 32)).astype(np.float32))
    assert 0 < _error(*_exact_and_half(model, feed, "fp16")) < 2.0**-8


def test_the_row_is_computed_in_float32(tiny_step: onnx.ModelProto, tiny_feed: Feed) -> None:
    """With no part of the network in it, x' is bit for bit that of float32."""
    table = _table(3)
    table[:, Column.C_OUT] = 0
    table[:, Column.C_SKIP] = 1 / 3
    outputs = _exact_and_half(tiny_step, {**tiny_feed, "table": table}, "fp16")
    for one, other in zip(*outputs, strict=True):
        assert np.array_equal(one, other)


def test_a_weight_that_does_not_fit_is_refused(tiny_step: onnx.ModelProto) -> None:
    large = onnx.ModelProto()
    large.CopyFrom(tiny_step)
    weight = next(t for t in large.graph.initializer if t.name == "network.conv_in.weight")
    weight.CopyFrom(numpy_helper.from_array(1e6 * numpy_helper.to_array(weight), weight.name))
    with pytest.raises(UsageError, match=r"conv_in\.weight holds .*, too large for fp16"):
        in_half(large, "fp16")
    in_half(large, "bf16")


def test_what_has_no_network_or_no_precision_is_refused(tiny_step: onnx.ModelProto) -> None:
    text = '<ir_version: 9, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Neg(x) }'
    with pytest.raises(ArtefactError, match="contains no network"):
        in_half(onnx.parser.parse_model(text), "fp16")
    with pytest.raises(UsageError, match="unknown half precision 'fp64'"):
        in_half(tiny_step, "fp64")


@pytest.fixture(scope="module")
def ncsnv2_step(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """NCSNv2 for CIFAR-10, at a quarter of its width, in fp16."""
    levels = geometric(levels=232, sigma_min=0.01, sigma_max=SIGMA_MAX)
    spec = replace(POINTS_SPEC, shape=(3, 32, 32), schedule=levels)
    torch.manual_seed(0)
    network = build_network(NetworkCall("ncsnv2", {"in_channels": 3, "channels": 32}))
    path = tmp_path_factory.mktemp("ncsnv2") / STEP
    export_step(StepModule(network, spec), path)
    return in_half(onnx.load(path), "fp16")


@pytest.mark.parametrize(("sigma", "fits"), [(SIGMA_MAX, True), (1e5, False)])
def test_ncsnv2_at_its_largest_sigma_stays_finite_in_fp16(
    sigma: float, fits: bool, ncsnv2_step: onnx.ModelProto
) -> None:
    """The second sigma, for which fp16 is not enough, proves that one would see it."""
    values = _half_values(ncsnv2_step, sigma)
    assert all(np.isfinite(value).all() for value in values) == fits


def _table(rows: int) -> np.ndarray:
    """Rows of an update that adds up x and D."""
    table = np.zeros((rows, Column.HISTORY + 1), np.float32)
    table[:, Column.COND] = np.arange(rows)
    table[:, [Column.C_IN, Column.C_SKIP, Column.A, Column.E]] = 1
    table[:, [Column.B, Column.C_OUT]] = -0.5
    table[:, Column.CLIP_LOW], table[:, Column.CLIP_HIGH] = -UNBOUNDED, UNBOUNDED
    return table


def _feed(x: np.ndarray, cond_table: np.ndarray) -> Feed:
    """Return a row for each sample, with its own conditioning and without noise."""
    return {
        "x": x,
        "history": np.zeros((1, *x.shape), np.float32),
        "row": np.arange(len(x)),
        "noise": np.zeros_like(x),
        "table": _table(len(x)),
        "cond_table": cond_table,
    }


def _exact_and_half(model: onnx.ModelProto, feed: Feed, precision: str) -> list[list[np.ndarray]]:
    """Run both graphs as ONNX defines them, with numbers that really have 16 bits."""
    graphs = (model, in_half(model, precision))
    return [ReferenceEvaluator(graph).run(None, feed) for graph in graphs]


def _error(exact: list[np.ndarray], half: list[np.ndarray]) -> float:
    return float(np.abs(half[3] - exact[3]).max() / np.abs(exact[3]).max())


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _after(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The nodes that depend on a value."""
    reached, found = {name}, []
    for node in graph.node:
        if reached & set(node.input):
            reached |= set(node.output)
            found.append(node)
    return found


def _half_values(model: onnx.ModelProto, sigma: float) -> list[np.ndarray]:
    """Every value in fp16 of the first row of a run that starts with noise of a sigma."""
    types = _types(model.graph)
    outputs = [name for node in model.graph.node for name in node.output]
    names = [name for name in outputs if types.get(name) == TensorProto.FLOAT16]
    assert len(names) > 200
    x = sigma * np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    feed = _feed(x, np.zeros((1, 0), np.float32)) | {"row": np.zeros(2, np.int64)}
    return list(values_inside(model, names, feed).values())
