"""ONNX Runtime sessions, and its errors as ours: they share no base of their own."""

from pathlib import Path
from typing import Any

from difftool.alone import onnx_runtime
from difftool.errors import ArtefactError, DifftoolError, first_line
from difftool.runtime.memory import is_out_of_memory, no_memory, no_memory_for_model


def cpu_session(path: Path, threads: int | None) -> Any:
    """An ONNX Runtime session on the CPU, of `threads` threads or of one for every core."""
    runtime, options = onnx_runtime(), cpu_options(threads)
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base of their own
        if is_out_of_memory(error):
            raise no_memory_for_model(path) from error
        raise ArtefactError(
            f"ONNX Runtime refuses {path}: {first_line(error)}",
            "export it again",
            code="graph-refused",
        ) from error


def cpu_options(threads: int | None) -> Any:
    """What `cpu_session` asks of ONNX Runtime; MissingDependencyError where that is not here."""
    options = onnx_runtime().SessionOptions()
    options.log_severity_level = 4  # what fails is raised; it need not be printed as well
    # CPUs without VNNI add products of 8 bits in 16, which overflow, unless they are told not to.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def run_error(error: Exception, size: int) -> DifftoolError:
    """ONNX Runtime's error in running a batch of `size`, as ours."""
    if is_out_of_memory(error):
        return no_memory(size)
    return ArtefactError(
        f"ONNX Runtime failed: {first_line(error)}", "verify the bundle", code="graph-failed"
    )
