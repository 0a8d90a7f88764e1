"""ONNX Runtime sessions, and its errors as ours: they share no base of their own."""

from collections.abc import Callable, Sequence
from typing import Any

from difftool.alone import onnx_runtime
from difftool.errors import ArtefactError, DifftoolError, first_line
from difftool.runtime.memory import library_error, no_memory, no_memory_for_model


def cpu_session(data: bytes, name: object, threads: int | None) -> Any:
    """Open an ONNX Runtime session on the CPU for a graph that errors call `name`.

    `threads` are those of a run, by default one for each core.
    """

    def refused(reason: str) -> ArtefactError:
        what = f"ONNX Runtime refuses {name}: {reason}"
        return ArtefactError(what, "export it again", code="graph-refused")

    return open_session(data, cpu_options(threads), ["CPUExecutionProvider"], name, refused)


def open_session(
    data: bytes,
    options: Any,
    providers: Sequence[Any],
    name: object,
    refused: Callable[[str], ArtefactError],
) -> Any:
    """Open a session by one of ONNX Runtime's providers; `refused` makes an error of a reason."""
    try:
        session = onnx_runtime().InferenceSession(data, options, providers=providers)
    except Exception as error:
        refusal = refused(first_line(error))
        raise library_error(error, no_memory_for_model(name), refusal) from error
    # It keeps the file, to start anew with other providers after an error. Nobody asked for that,
    # and the file would be in memory twice.
    session.disable_fallback()
    session._model_bytes = None
    return session


def session_options() -> Any:
    """Return the options that all sessions have."""
    options = onnx_runtime().SessionOptions()
    options.log_severity_level = 4  # errors are raised, and need not be printed as well
    # From a graph's bytes it might otherwise guess that they are of its own format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def cpu_options(threads: int | None) -> Any:
    """Return the options of `cpu_session`; MissingDependencyError if ONNX Runtime is missing."""
    options = session_options()
    # CPUs without VNNI add products of 8 bits in 16 bits, which overflow, unless told not to.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def run_error(error: Exception, size: int) -> DifftoolError:
    """Return ONNX Runtime's error in running a batch of `size` as ours."""
    failed = f"ONNX Runtime failed: {first_line(error)}"
    failure = ArtefactError(failed, "verify the bundle", code="graph-failed")
    return library_error(error, no_memory(size), failure)
