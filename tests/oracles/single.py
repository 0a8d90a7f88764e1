"""Models of one node, and their types and sizes by the onnx package and ONNX Runtime."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from difftool.alone import open_vino
from difftool.preflight import GUIDED, Graph, GraphLimits, read_graph
from difftool.preflight.shapes.footprint import Walk
from difftool.preflight.shapes.operation import Made
from difftool.preflight.shapes.sized import Shape, Sized

Array = NDArray[Any]


def parse_graph(model: onnx.ModelProto) -> Graph:
    """Return a model's outermost graph as preflight reads it."""
    data, limits = model.SerializeToString(), GraphLimits()
    return read_graph(data, "model", control_flow=True, defaults=[GUIDED], limits=limits)


class Fixed(np.ndarray):
    """An input that is a constant of the graph."""


def fixed(*numbers: Any, kind: Any = np.int64) -> Array:
    """Return a list of numbers that is a constant of the graph."""
    return np.array(numbers, kind).view(Fixed)


def scalar(number: Any, kind: Any = np.int64) -> Array:
    """Return one number that is a constant of the graph."""
    return np.array(number, kind).view(Fixed)


def image(*shape: int, kind: Any = np.float32) -> Array:
    """Return the numbers 0, 1, 2, 3, 0, ... in a shape."""
    return (np.arange(np.prod(shape, dtype=int)) % 4).reshape(shape).astype(kind)


@dataclass(frozen=True)
class Single:
    """A node: its operator, its inputs (None if one is left out) and its attributes."""

    operator: str
    inputs: Sequence[Array | None] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1
    domain: str = ""

    def __repr__(self) -> str:
        shapes = [None if value is None else value.shape for value in self.inputs]
        return f"{self.operator}-{self.opset} {shapes} {dict(self.attributes)}"

    def model(self) -> onnx.ModelProto:
        """Return the model; its inputs are x0, x1 and so on, its outputs y0, y1 and so on."""
        names = ["" if x is None else f"x{i}" for i, x in enumerate(self.inputs)]
        results = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(
            self.operator, names, results, "node", domain=self.domain, **self.attributes
        )
        given = [
            helper.make_tensor_value_info(name, _kind(x), x.shape)
            for name, x in self.feed().items()
        ]
        constants = [
            numpy_helper.from_array(np.asarray(x), f"x{i}")
            for i, x in enumerate(self.inputs)
            if isinstance(x, Fixed)
        ]
        graph = helper.make_graph(
            [node], "single", given, [onnx.ValueInfoProto(name=name) for name in results], constants
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def feed(self) -> dict[str, Array]:
        """Return what a runtime is given."""
        given = {f"x{i}": x for i, x in enumerate(self.inputs) if x is not None}
        return {name: np.asarray(x) for name, x in given.items() if not isinstance(x, Fixed)}

    def walked(self, limit: int = 1 << 30) -> list[Sized]:
        """Return what preflight knows of the outputs."""
        walk = Walk(parse_graph(self.model()), limit)
        walk.run({name: array.shape for name, array in self.feed().items()})
        return [walk.values[f"y{i}"] for i in range(self.outputs)]

    def inferred(self) -> Made:
        """Return types and sizes of the outputs as preflight sees them."""
        return [(value.kind, value.shape) for value in self.walked()]

    def of_onnx(self) -> Made:
        """Return the same by onnx's shape inference; nothing if it does not know them."""
        found = shape_inference.infer_shapes(self.model(), strict_mode=True, data_prop=True)
        types = [value.type.tensor_type for value in found.graph.output]
        if not all(
            t.HasField("shape") and all(d.HasField("dim_value") for d in t.shape.dim) for t in types
        ):
            return []
        return [(t.elem_type, tuple(d.dim_value for d in t.shape.dim)) for t in types]

    def of_reference(self) -> Made:
        """Return the same of what onnx's reference computes."""
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(self.model()).run(None, self.feed())
        arrays = [np.asarray(array) for array in found]
        return [(_kind(array), array.shape) for array in arrays]

    def of_runtime(self) -> Made:
        """Return the same of what ONNX Runtime computes."""
        return [(value.element_type(), tuple(value.shape())) for value in self.run()]

    def of_openvino(self) -> list[Shape]:
        """Return the sizes of the outputs as OpenVINO reads them; nothing if it knows none."""
        model = _core().read_model(self.model().SerializeToString())
        found = [output.get_partial_shape() for output in model.outputs]
        return [] if any(p.is_dynamic for p in found) else [tuple(p.to_shape()) for p in found]

    def run(self) -> list[onnxruntime.OrtValue]:
        """Return what ONNX Runtime computes."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            self.model().SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        values = onnxruntime.OrtValue.ortvalue_from_numpy
        return session.run_with_ort_values(None, {n: values(x) for n, x in self.feed().items()})


@functools.cache
def _core() -> Any:
    return open_vino().Core()


def _kind(array: Array) -> int:
    return helper.np_dtype_to_tensor_dtype(array.dtype)
