"""Read and judge ONNX files before any runtime sees them, without the onnx package."""

from difftool.preflight.file import OnnxFile
from difftool.preflight.graph import GraphLimits, read_graph
from difftool.preflight.interface import GUIDED, check_conditioner, check_step
from difftool.preflight.parts import Graph, Node, Tensor, Value

__all__ = [
    "GUIDED",
    "Graph",
    "GraphLimits",
    "Node",
    "OnnxFile",
    "Tensor",
    "Value",
    "check_conditioner",
    "check_step",
    "read_graph",
]
