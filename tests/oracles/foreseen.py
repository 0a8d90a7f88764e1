"""Types and sizes of all values of a graph: as preflight foresees them, and as others have them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, shape_inference

from difftool.diffusion.columns import Column
from difftool.export.lowerings.rows import ONE_OR_BATCH
from difftool.preflight.shapes.footprint import Walk
from tests.oracles.single import parse_graph

Shape = tuple[int, ...]
Sizes = Mapping[str, tuple[int, Shape]]

LIMIT: Final = 1 << 30
BATCH, ROWS, CONDS = 3, 5, 4


def foreseen_shapes(model: onnx.ModelProto, slots: int = 2) -> dict[str, Shape]:
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
    graph = parse_graph(model)
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
    defaults = {tensor.name for tensor in model.graph.initializer}
    feed: dict[str, NDArray[Any]] = {
        value.name: np.zeros(
            shapes[value.name], helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        )
        for value in model.graph.input
        if value.name not in defaults
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
    shapes = foreseen_shapes(model, slots)
    assert foreseen(model, shapes) == made(model, shapes)


def require_all_foreseen(folder: Path, slots: int = 2) -> None:
    for path in sorted(folder.glob("*.onnx")):
        require_foreseen(onnx.load(path), slots)
