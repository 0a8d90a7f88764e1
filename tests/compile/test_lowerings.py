"""The lowerings for GPUs: the same numbers as the exporter's, with other operators."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from difftool.bundle import STEP
from difftool.compile.lowerings import GPU, Lowering, lowered
from difftool.compile.lowerings.norms import lower_norms
from difftool.compile.lowerings.parity import parity_kernels, whole_kernel
from difftool.compile.lowerings.upsampling import join_upsampling
from difftool.compile.precision import in_half
from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.columns import Column
from difftool.export.onnx import export_step
from difftool.export.step import StepModule
from difftool.networks import build_network
from difftool.preflight import GUIDED
from difftool.runtime.shipped import MODELS
from tests.fixtures import IMAGE_SPEC
from tests.oracles.bfloat16 import require_kernels_of_bfloat16

LEVELS = {"channels": 8, "multipliers": [1, 2], "attention": [1], "blocks": 1, "groups": 4}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    """The shipped DDPM, and a tiny U-Net of CIFAR-10's kind with random weights: attention too."""
    path = tmp_path_factory.mktemp("unet") / STEP
    torch.manual_seed(0)
    network = build_network(NetworkCall("unet", {"in_channels": 1, "out_channels": 1, **LEVELS}))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    export_step(StepModule(network, IMAGE_SPEC), path)
    return {"ddpm-mnist": onnx.load(MODELS / "ddpm-mnist" / STEP), "unet": onnx.load(path)}


@pytest.mark.parametrize("lowerings", [(join_upsampling,), (lower_norms,), GPU])
@pytest.mark.parametrize("name", ["ddpm-mnist", "unet"])
def test_a_lowered_step_equals_the_exported_one(
    name: str, lowerings: Sequence[Lowering], steps: dict[str, onnx.ModelProto]
) -> None:
    plain = steps[name]
    feeds = _feeds(plain)
    expected, found = (_run(model, feeds) for model in (plain, lowered(plain, lowerings)))
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


@pytest.mark.parametrize("name", ["ddpm-mnist", "unet"])
def test_a_lowered_step_has_the_operators_of_gpus(
    name: str, steps: dict[str, onnx.ModelProto]
) -> None:
    before, after = _operators(steps[name]), _operators(lowered(steps[name]))
    ups = before["Conv"] - after["Conv"]
    assert ups == 3 * after["Resize"] > 0
    assert after["LayerNormalization"] == before["InstanceNormalization"] > 0
    assert after.keys().isdisjoint({"BatchNormalization", "InstanceNormalization"})
    assert before["Concat"] - after["Concat"] == 3 * after["Resize"]
    assert before["Reshape"] - after["Reshape"] == 7 * after["Resize"]


@pytest.mark.parametrize(
    "placed", [{"pads": [1, 1, 0, 0]}, {"pads": [1, 0, 0, 1]}, {"auto_pad": "SAME_LOWER"}]
)
def test_convolutions_that_lie_otherwise_are_not_joined(
    placed: dict[str, Any], steps: dict[str, onnx.ModelProto]
) -> None:
    """One of four: where it reads the small image, the whole kernel would not."""
    step = onnx.ModelProto()
    step.CopyFrom(steps["unet"])
    joined = _operators(lowered(step, [join_upsampling]))["Resize"]
    assert joined == 1
    conv = [node for node in step.graph.node if _kernel(node) == [2, 2]][3]
    kept = [each for each in conv.attribute if each.name != "pads"]
    del conv.attribute[:]
    conv.attribute.extend([*kept, *(onnx.helper.make_attribute(*each) for each in placed.items())])
    assert "Resize" not in _operators(lowered(step, [join_upsampling]))


def test_a_lowered_step_keeps_no_unread_weights(steps: dict[str, onnx.ModelProto]) -> None:
    graph = lowered(steps["unet"]).graph
    read = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read


def test_the_whole_kernel_comes_back_from_its_parities() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    parts = list(parity_kernels(weight).reshape(4, 4, 3, 2, 2))
    found = whole_kernel(parts)
    assert found is not None
    assert np.abs(found - weight).max() < 1e-6
    assert whole_kernel([2 * parts[0], *parts[1:]]) is None
    assert whole_kernel(parts[:3]) is None


def test_norms_of_16_bits_take_their_statistics_in_float32(
    steps: dict[str, onnx.ModelProto],
) -> None:
    graph = in_half(steps["ddpm-mnist"], "fp16").graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    assert len(norms) == 27
    for norm in norms:
        stash = next(each.i for each in norm.attribute if each.name == "stash_type")
        assert stash == TensorProto.FLOAT
        assert types[norm.input[0]] == types[norm.output[0]] == TensorProto.FLOAT16


@pytest.mark.parametrize("name", ["tiny", "points"])
def test_onnx_runtime_has_all_kernels_of_bfloat16_on_gpus(
    name: str, request: pytest.FixtureRequest
) -> None:
    """The U-Net and the MLP here; tests/importers looks at the graphs of the other networks."""
    require_kernels_of_bfloat16(request.getfixturevalue(f"{name}_bundle"))


def _kernel(node: onnx.NodeProto) -> list[int]:
    found = [each.ints for each in node.attribute if each.name == "kernel_shape"]
    return list(found[0]) if found else []


def _operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def _feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """A row of two samples in which every term counts."""
    rng = np.random.default_rng(0)
    table = np.full((4, Column.HISTORY + 1), 0.1)
    table[:, [Column.CLIP_LOW, Column.CLIP_HIGH]] = -3, 3
    table[:, [Column.C_IN, Column.COND]] = 1
    found = {"row": np.arange(2), "table": table.astype(np.float32)}
    for value in model.graph.input:
        if value.name not in {*found, GUIDED}:
            dims = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
            dims = [1, *dims[1:]] if value.name == "history" else dims
            found[value.name] = rng.standard_normal(dims).astype(np.float32)
    return found


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[np.ndarray] = session.run(None, feeds)
    return outputs
