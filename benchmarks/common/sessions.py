"""Graphs in ONNX Runtime as it comes, which is how a peer would run them."""

from pathlib import Path

import onnxruntime


def options(threads: int | None = None) -> onnxruntime.SessionOptions:
    """Set the threads, or leave them to ONNX Runtime, and have it say errors alone."""
    result = onnxruntime.SessionOptions()
    result.log_severity_level = 3
    if threads is not None:
        result.intra_op_num_threads = threads
    return result


def session(
    graph: Path | bytes, settings: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU."""
    source = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])
