"""Every value of every graph that difftool writes has the type and sizes that were foreseen."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, shape_inference

import difftool
from difftool.bundle import STEP, Bundle, read_bundle
from difftool.compile.precision import in_half
from difftool.compile.quantization.calibration import find_ranges, from_trajectory
from difftool.compile.quantization.fp8 import in_fp8
from difftool.compile.quantization.graph import in_8_bits, layers
from difftool.compile.quantization.symmetric import in_int8
from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.columns import Column
from difftool.export.lowerings.rows import ONE_OR_BATCH
from difftool.export.onnx import export_graphs
from difftool.export.step import StepModule
from difftool.networks import build_network
from difftool.preflight.shapes.footprint import Walk
from difftool.runtime.shipped import find_bundle, shipped_models
from tests.fixtures import POINTS_SPEC
from tests.oracles.single import graph_of

Shape = tuple[int, ...]
Sizes = Mapping[str, tuple[int, Shape]]

LIMIT: Final = 1 << 30
EXTRACTORS: Final = Path(difftool.__file__).parent / "extractors"
BATCH, ROWS, CONDS = 3, 5, 4


def shapes_of(model: onnx.ModelProto, slots: int = 2) -> dict[str, Shape]:
    """Return sizes for a model's inputs; every free axis has a size of its own."""
    free = {
        "batch": BATCH,
        "slots": slots,
        "rows": ROWS,
        "columns": Column.HISTORY + slots,
        "conds": CONDS,
        ONE_OR_BATCH: BATCH if slots > 1 else 1,
    }
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else free[dim.dim_param]
            for dim in value.type.tensor_type.shape.dim
        )
        for value in model.graph.input
    }


def foreseen(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> Sizes:
    """Return types and sizes of all that the nodes make, as preflight sees them."""
    graph = graph_of(model)
    walk = Walk(graph, LIMIT)
    walk.run(shapes)
    made = [name for node in graph.nodes for name in node.outputs if name]
    return {name: (walk.values[name].kind, walk.values[name].shape) for name in made}


def made(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> Sizes:
    """Return the same of what ONNX Runtime computes, node by node."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed: dict[str, NDArray[Any]] = {
        value.name: np.zeros(
            shapes[value.name], helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        )
        for value in model.graph.input
    }
    values = onnxruntime.OrtValue.ortvalue_from_numpy
    found = session.run_with_ort_values(names, {name: values(x) for name, x in feed.items()})
    return {
        name: (value.element_type(), tuple(value.shape()))
        for name, value in zip(names, found, strict=True)
    }


def inferred(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> Sizes:
    """Return the same as the onnx package sees them, of those that it knows."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:], fixed.graph.output[:]
    for value in fixed.graph.input:
        kind = value.type.tensor_type
        kind.CopyFrom(helper.make_tensor_type_proto(kind.elem_type, shapes[value.name]).tensor_type)
    found = shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)
    types = {value.name: value.type.tensor_type for value in found.graph.value_info}
    return {
        name: (kind.elem_type, tuple(dim.dim_value for dim in kind.shape.dim))
        for name, kind in types.items()
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)
    }


def require_foreseen(model: onnx.ModelProto, slots: int = 2) -> None:
    shapes = shapes_of(model, slots)
    assert foreseen(model, shapes) == made(model, shapes)


def require_all_foreseen(folder: Path, slots: int = 2) -> None:
    for path in sorted(folder.glob("*.onnx")):
        require_foreseen(onnx.load(path), slots)


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("name", ["tiny", "featured", "classes", "points"])
def test_bundles(name: str, slots: int, request: pytest.FixtureRequest) -> None:
    require_all_foreseen(request.getfixturevalue(f"{name}_bundle"), slots)


@pytest.mark.parametrize(
    "folder", [*map(find_bundle, shipped_models()), EXTRACTORS], ids=lambda p: p.name
)
def test_what_is_shipped(folder: Path) -> None:
    require_all_foreseen(folder)


def in_8_bits_of(bundle: Bundle) -> onnx.ModelProto:
    """The step graph as `difftool quantize` writes it, with all its layers in int8."""
    model = onnx.load(bundle.file(STEP))
    feeds = from_trajectory(bundle, bundle.default_program(), samples=1).feeds
    return in_8_bits(model, find_ranges(model, feeds), layers(model))


@pytest.mark.parametrize("precision", ["fp16", "int8", "symmetric", "fp8"])
def test_precisions(precision: str, tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    model = {
        "fp16": lambda: in_half(onnx.load(bundle.file(STEP)), "fp16"),
        "int8": lambda: in_8_bits_of(bundle),
        "symmetric": lambda: in_int8(bundle),
        "fp8": lambda: in_fp8(bundle),
    }[precision]()
    require_foreseen(model)


def test_bfloat16(tiny_bundle: Path) -> None:
    """No runtime for CPUs has it in ONNX, but the onnx package knows sizes of it."""
    model = in_half(onnx.load(tiny_bundle / STEP), "bf16")
    shapes = shapes_of(model)
    found, known = foreseen(model, shapes), inferred(model, shapes)
    assert len(known) > len(found) / 2
    assert {name: found[name] for name in known} == known
    assert onnx.TensorProto.BFLOAT16 in {kind for kind, _ in found.values()}


SMALL: Final[Mapping[str, dict[str, Any]]] = {
    "ncsn": {"in_channels": 1, "levels": 5, "channels": 2},
    "ncsnv2": {"in_channels": 1, "channels": 2, "multipliers": [1, 1, 1]},
    "ncsnpp": {"in_channels": 1, "channels": 8, "multipliers": [1, 2], "blocks": 1},
    "linear_attention_unet": {
        "in_channels": 1, "out_channels": 1, "channels": 8, "multipliers": [1, 2],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", SMALL)
def test_every_network(kind: str, tmp_path: Path) -> None:
    spec = replace(POINTS_SPEC, shape=(1, 8, 8))
    export_graphs(StepModule(build_network(NetworkCall(kind, SMALL[kind])), spec), tmp_path)
    require_all_foreseen(tmp_path)
