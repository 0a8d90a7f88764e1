"""Graphs in ONNX Runtime as it comes, which is how a peer would run them."""

from pathlib import Path

from onnxruntime import InferenceSession, SessionOptions


def options(threads: int | None = None) -> SessionOptions:
    """Set the threads, or leave them to ONNX Runtime, and have it say errors alone."""
    result = SessionOptions()
    result.log_severity_level = 3
    if threads is not None:
        result.intra_op_num_threads = threads
    return result


def session(graph: Path, settings: SessionOptions) -> InferenceSession:
    """Open a graph on the CPU."""
    return InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])
