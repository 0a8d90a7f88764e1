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
    """A copy of a bundle with other files."""
    shutil.copytree(bundle, out)
    return with_files(read_bundle(out), files)


def with_weight(
    model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> onnx.ModelProto:
    """A graph with one initializer changed."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (weight,) = (value for value in changed.graph.initializer if value.name == name)
    weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight)), name))
    return changed


def deep_weight(model: onnx.ModelProto) -> tuple[str, str]:
    """The name of a convolution in the second half of a graph, and of its weight."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    node = convolutions[len(convolutions) * 2 // 3]
    return node.name, node.input[1]


def with_deep_defect(bundle: Path, out: Path, change: float = 1.02) -> tuple[Bundle, str]:
    """A copy of a bundle in whose step graph a weight is off, and the node that has it."""
    model = onnx.load(bundle / STEP)
    node, weight = deep_weight(model)
    broken = with_weight(model, weight, lambda w: (w * change).astype(np.float32))
    return copied(bundle, out, {STEP: broken.SerializeToString()}), node


def with_nan_at(bundle: Path, out: Path, cond: float) -> Bundle:
    """A copy of a bundle whose conditioner answers with nan to one cond."""
    model = onnx.load(bundle / CONDITIONER)
    graph = model.graph
    producer = next(node for node in graph.node if "cond_table" in node.output)
    producer.output[list(producer.output).index("cond_table")] = "sound"
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(cond), "the_cond"),
            numpy_helper.from_array(np.float32(-1), "minus_one"),
            numpy_helper.from_array(np.array([1]), "the_axis"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Equal", ["cond", "the_cond"], ["hit"]),
            helper.make_node("Sqrt", ["minus_one"], ["nan"]),  # as a weight it is refused
            helper.make_node("Unsqueeze", ["hit", "the_axis"], ["hits"]),
            helper.make_node("Where", ["hits", "nan", "sound"], ["cond_table"]),
        ]
    )
    return copied(bundle, out, {CONDITIONER: model.SerializeToString()})
