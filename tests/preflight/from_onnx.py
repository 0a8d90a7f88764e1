"""A model of the onnx package as preflight reads it."""

import onnx

from difftool.preflight import Graph, GraphLimits, read_graph


def graph_of(model: onnx.ModelProto) -> Graph:
    """The outermost graph of a model."""
    return read_graph(model.SerializeToString(), "model", control_flow=True, limits=GraphLimits())
