"""What an ONNX file holds, read and judged before any runtime sees it; needs no onnx package."""

from difftool.preflight.graph import Graph, GraphLimits, Value, check_graph, read_graph
from difftool.preflight.interface import check_conditioner, check_step

__all__ = [
    "Graph",
    "GraphLimits",
    "Value",
    "check_conditioner",
    "check_graph",
    "check_step",
    "read_graph",
]
