"""ONNX Runtime sessions, and its errors as ours: they share no base of their own."""

from typing import Any

from difftool.alone import onnx_runtime
from difftool.errors import ArtefactError, DifftoolError, first_line
from difftool.runtime.memory import is_out_of_memory, no_memory, no_memory_for_model


def cpu_session(data: bytes, name: object, threads: int | None) -> Any:
    """An ONNX Runtime session on the CPU for a graph that errors call `name`.

    `threads` are those of a run, one for every core by default.
    """
    runtime, options = onnx_runtime(), cpu_options(threads)
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base of their own
        if is_out_of_memory(error):
            raise no_memory_for_model(name) from error
        raise ArtefactError(
            f"ONNX Runtime refuses {name}: {first_line(error)}",
            "export it again",
            code="graph-refused",
        ) from error
    forget_bytes(session)
    return session


def forget_bytes(session: Any) -> None:
    """Let go of the file that a session was made of: it would be in memory twice.

    The session keeps it to start anew with other providers after an error, which nobody asked for.
    """
    session.disable_fallback()
    session._model_bytes = None


def cpu_options(threads: int | None) -> Any:
    """What `cpu_session` asks of ONNX Runtime; MissingDependencyError if that is not here."""
    options = onnx_runtime().SessionOptions()
    options.log_severity_level = 4  # what fails is raised; it need not be printed as well
    # Of bytes that are a graph it might otherwise think that they are of its own format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
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
