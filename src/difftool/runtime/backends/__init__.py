"""Backends: one file each, one class that runs rows.

A backend's library is imported inside its own file, which is imported on demand.
"""

from collections.abc import Collection
from typing import Final

from difftool.bundle import PRECISIONS, Bundle
from difftool.errors import MissingDependencyError, UsageError
from difftool.log import Log
from difftool.runtime.protocols import Backend

_log = Log(__name__)

BACKENDS: Final = (
    "tensorrt",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "onnxruntime-tensorrt-rtx",
    "onnxruntime-cpu",
    "openvino",
    "torchscript",
)
# Of these the first that works here is taken where none is named: the fastest come first. The
# others build engines while one waits, or run code out of the bundle, and are only taken by name.
AUTOMATIC: Final = ("tensorrt", "onnxruntime-cuda", "onnxruntime-cpu")
# No precision of a graph: on a GPU, products may round what they multiply to 10 bits of mantissa.
TF32: Final = "tf32"


def open_backend(
    bundle: Bundle,
    name: str | None,
    *,
    threads: int | None,
    precision: str = "fp32",
    trusted: Collection[str] = (),
) -> Backend:
    """A backend on a bundle, by name; "auto" or None is the first of AUTOMATIC that works here.

    `precision` is what the network computes in: "int8" is what `difftool quantize` makes, "bf16"
    OpenVINO's, "tf32" that of onnxruntime-cuda; "tensorrt:fp16" says both in one word. `trusted`
    are the sha256 of engines and TorchScript made elsewhere that may run. `threads` are those of
    a CPU. A backend that is named is never replaced by another.

    Raises:
        MissingDependencyError: what the backend needs is not here; says what and how to get it.
        UsageError: there is no backend of that name, or it does not compute in that precision.
        ArtefactError: the bundle has no graph of that precision.
    """
    from difftool.runtime.cuda.cuda_device import has_driver

    if precision not in (known := (*PRECISIONS, TF32)):
        raise UsageError(f"unknown precision {precision!r}", f"one of: {', '.join(known)}")
    if precision == TF32:
        if name not in (None, "auto", "onnxruntime-cuda"):
            raise UsageError(f"{name} has no tf32", "choose --backend onnxruntime-cuda")
        name = "onnxruntime-cuda"
    if name not in (None, "auto"):
        return _open(bundle, str(name), threads, precision, trusted)
    if has_driver() and precision == "fp32":
        for candidate in AUTOMATIC[:-1]:
            try:
                return _open(bundle, candidate, threads, precision, trusted)
            except MissingDependencyError as error:
                _log.info("not %s: %s", candidate, error)
    return _open(bundle, AUTOMATIC[-1], threads, precision, trusted)


def _open(
    bundle: Bundle, name: str, threads: int | None, precision: str, trusted: Collection[str]
) -> Backend:
    kind, colon, named = name.partition(":")
    if kind == "tensorrt":
        from difftool.runtime.backends.tensorrt import open_tensorrt

        return open_tensorrt(bundle, named if colon else precision, trusted=trusted)
    if name == "onnxruntime-cpu":
        from difftool.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu

        return OnnxRuntimeCpu(bundle, threads=threads, precision=precision)
    if name == "openvino":
        from difftool.runtime.backends.openvino import OpenVino

        return OpenVino(bundle, threads=threads, precision=precision)
    if name == "onnxruntime-cuda" and precision == TF32:
        from difftool.runtime.backends.onnxruntime_cuda import open_onnxruntime

        return open_onnxruntime(bundle, name, tf32=True)
    if name in BACKENDS and precision != "fp32":
        raise UsageError(
            f"{name} runs step.onnx in fp32, not {precision}", "choose --backend onnxruntime-cpu"
        )
    if name == "torchscript":
        from difftool.runtime.backends.torchscript import TorchScript

        return TorchScript(bundle, threads=threads, trusted=trusted)
    if name in BACKENDS:
        from difftool.runtime.backends.onnxruntime_cuda import open_onnxruntime

        return open_onnxruntime(bundle, name)
    raise UsageError(f"unknown backend {name!r}", f"one of: auto, {', '.join(BACKENDS)}")
