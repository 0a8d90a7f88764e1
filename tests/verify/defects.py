"""Bundles with a defect that is planted on purpose."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from difftool.bundle import CONDITIONER, STEP, Bundle, read_bundle
from difftool.bundle.amend import with_files


def copied(bundle: Path, out: Path, files: dict[str, bytes]) -> Bundle:
    """Copy a bundle, with other files."""
    shutil.copytree(bundle, out)
    return with_files(read_bundle(out), files)


def with_weight(
    model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> onnx.ModelProto:
    """Return a graph with one initializer changed."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (weight,) = (value for value in changed.graph.initializer if value.name == name)
    weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight)), name))
    return changed


def deep_weight(model: onnx.ModelProto) -> tuple[str, str]:
    """Name a convolution in the second half of a graph, and its weight."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    node = convolutions[len(convolutions) * 2 // 3]
    return node.name, node.input[1]


def with_deep_defect(bundle: Path, out: Path, change: float = 1.02) -> tuple[Bundle, str]:
    """Copy a bundle with a weight of the step graph off; return the node that has it, too."""
    model = onnx.load(bundle / STEP)
    node, weight = deep_weight(model)
    broken = with_weight(model, weight, lambda w: (w * change).astype(np.float32))
    return copied(bundle, out, {STEP: broken.SerializeToString()}), node


def with_nan_at(bundle: Path, out: Path, cond: float) -> Bundle:
    """Copy a bundle; the conditioner answers with nan to one cond."""
    model = onnx.load(bundle / CONDITIONER)
    graph = model.graph
    producer = next(node for node in graph.node if "cond_table" in node.output)
    producer.output[list(producer.output).index("cond_table")] = "sound"
    values = {"the_cond": np.float32(cond), "minus_one": np.float32(-1), "the_axis": np.array([1])}
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in values.items())
    for operator, taken, made in (
        ("Equal", ["cond", "the_cond"], "hit"),
        ("Sqrt", ["minus_one"], "nan"),  # as a weight it is refused
        ("Unsqueeze", ["hit", "the_axis"], "hits"),
        ("Where", ["hits", "nan", "sound"], "cond_table"),
    ):
        graph.node.append(helper.make_node(operator, taken, [made]))
    return copied(bundle, out, {CONDITIONER: model.SerializeToString()})
