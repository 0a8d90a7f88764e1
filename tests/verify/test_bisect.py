"""Bisection names the node in which an error begins, and none if there is no error."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from difftool.bundle import CONDITIONER, STEP, read_bundle
from difftool.compile.precision import in_half
from difftool.compile.quantization.calibration import from_trajectory
from difftool.diffusion.samplers import ddpm
from difftool.errors import UsageError
from difftool.verify import verify
from difftool.verify.bisect import bisect
from tests.verify.defects import copied, deep_weight, with_weight

Inputs = dict[str, np.ndarray]


@pytest.fixture
def step(tiny_bundle: Path) -> onnx.ModelProto:
    return onnx.load(tiny_bundle / STEP)


@pytest.fixture
def inputs(tiny_bundle: Path) -> Inputs:
    """The step graph's, at row 5 of a run."""
    bundle = read_bundle(tiny_bundle)
    return from_trajectory(bundle, bundle.default_program(), samples=2).feeds[5]


def test_equal_graphs_have_no_culprit(step: onnx.ModelProto, inputs: Inputs) -> None:
    assert bisect(step, step, inputs, 0.0) is None


@pytest.mark.parametrize("change", [1.001, np.nan])
def test_a_changed_weight(change: float, step: onnx.ModelProto, inputs: Inputs) -> None:
    node, weight = deep_weight(step)
    broken = with_weight(step, weight, lambda w: (w * change).astype(np.float32))
    culprit = bisect(broken, step, inputs, 1e-5)
    assert (culprit.file, culprit.node, culprit.operator) == (STEP, node, "Conv")
    expected = np.nan if np.isnan(change) else 1e-3
    assert culprit.error == pytest.approx(expected, rel=1, nan_ok=True)
    assert 1 < culprit.position < culprit.compared
    assert bisect(broken, step, inputs, 0.1) is None or np.isnan(change)


def test_a_graph_and_its_own_half(step: onnx.ModelProto, inputs: Inputs) -> None:
    half = in_half(step, "fp16")
    assert bisect(half, step, inputs, 0.02) is None
    culprit = bisect(half, step, inputs, 1e-5)
    first = next(node for node in step.graph.node if node.op_type == "Conv")
    assert culprit.value == first.output[0]


def test_strangers_cannot_be_compared(
    step: onnx.ModelProto, points_bundle: Path, inputs: Inputs
) -> None:
    other = onnx.load(points_bundle / STEP)
    for node in other.graph.node:
        node.output[:] = [f"other.{name}" for name in node.output]
    with pytest.raises(UsageError, match="no value in common"):
        bisect(step, other, inputs, 1e-5)


def test_numbers_of_another_export(step: onnx.ModelProto, inputs: Inputs) -> None:
    """The other graph has its numbered values in another order, as another exporter gives them."""
    other = onnx.ModelProto()
    other.CopyFrom(step)
    numbered = [out for node in step.graph.node for out in node.output if out.startswith("val_")]
    turned = dict(zip(numbered, numbered[1:] + numbered[:1], strict=True))
    for node in other.graph.node:
        node.input[:] = [turned.get(name, name) for name in node.input]
        node.output[:] = [turned.get(name, name) for name in node.output]
    del other.graph.value_info[:]
    assert bisect(step, other, inputs, 1e-5) is None
    node, weight = deep_weight(step)
    broken = with_weight(step, weight, lambda w: (w * 1.01).astype(np.float32))
    culprit = bisect(broken, other, inputs, 1e-5)
    assert culprit.node == node


def test_two_precisions_of_a_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    """The defect is in the graph of the other precision; the first sound half is passed over."""
    model = in_half(onnx.load(tiny_bundle / STEP), "fp16")
    node, weight = deep_weight(model)
    broken = with_weight(model, weight, lambda w: (w * 1.5).astype(np.float16))
    bundle = copied(tiny_bundle, tmp_path / "b", {"step.fp16.onnx": broken.SerializeToString()})
    program = ddpm(bundle.spec, clip=False)
    cpu = "onnxruntime-cpu"
    report = verify(bundle, backend=cpu, precision="fp16", program=program, bisect=True)
    assert not report.passed
    assert (report.culprit.file, report.culprit.node) == ("step.fp16.onnx", node)


def test_one_graph_on_two_backends_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"both sides run step\.onnx"):
        verify(tiny_bundle, backend="openvino", bisect=True)


def test_a_conditioner_is_bisected_likewise(tiny_bundle: Path) -> None:
    model = onnx.load(tiny_bundle / CONDITIONER)
    feed = {"cond": np.arange(20, dtype=np.float32)}
    weights = {value.name for value in model.graph.initializer}
    node = next(node for node in model.graph.node if node.op_type in ("Gemm", "MatMul"))
    weight = next(name for name in node.input if name in weights)
    broken = with_weight(model, weight, lambda w: (w * 1.05).astype(np.float32))
    culprit = bisect(broken, model, feed, 1e-4, file=CONDITIONER)
    assert (culprit.file, culprit.node) == (CONDITIONER, node.name)
