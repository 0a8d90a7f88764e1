"""Open the device of the GPU tests: a real one, or the fake one with ONNX Runtime's CPU.

On the fake device TensorRT has stand-ins, which build engines that ONNX Runtime's CPU runs.

Everything imports what it needs when it needs it: the kernels' tests run without ONNX Runtime.
"""

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import DTypeLike

import difftool
from difftool.errors import MissingDependencyError, UsageError
from difftool.runtime.backends.table import BACKENDS
from difftool.runtime.cuda.cuda_device import has_driver, open_device
from tests.runtime.cuda.fake import FakeBuffer, FakeDevice

FLOATS = ("fp32", "tf32", "fp16", "bf16")
# Of those that build nothing while one waits.
OFFERED = [
    (row.name, precision)
    for row in BACKENDS
    if row.gpu and not row.untried
    for precision in row.precisions
    if precision in FLOATS
]
EXACT = [(name, precision) for name, precision in OFFERED if precision == "fp32"]
SHIPPED = ("ddpm-mnist", "ncsn-mnist")


class Absent(Exception):
    """Something that a test needs is not here; the message names it."""


class CountedDevice(FakeDevice):
    """The fake device, which knows how many bytes it holds."""

    arch = "sm_89"
    held = 0

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> FakeBuffer:
        buffer = super().allocate(shape, dtype)
        size = int(np.prod(shape)) * buffer.dtype.itemsize
        self.held += size
        weakref.finalize(buffer, self._free, size)
        return buffer

    def _free(self, size: int) -> None:
        self.held -= size


def a_device(kind: str) -> Any:
    """Open a device, "fake" or "real"."""
    if kind == "fake":
        return CountedDevice()
    if not has_driver():
        raise Absent("no NVIDIA GPU")
    try:
        return open_device()
    except MissingDependencyError as error:
        raise Absent(error.message) from error


def held_bytes(device: Any) -> int:
    """Return how much of a device's memory is taken."""
    if isinstance(device, CountedDevice):
        return device.held
    from cuda.bindings import driver

    device.synchronize()
    _, free, total = driver.cuMemGetInfo()
    return int(total) - int(free)


@contextlib.contextmanager
def fake_onnxruntime(device: FakeDevice) -> Iterator[list[Any]]:
    """Have ONNX Runtime's CUDA provider on the fake device; gives the sessions that it opens."""
    import onnxruntime

    from difftool.runtime.backends import onnxruntime_cuda
    from tests.runtime.test_backends_gpu import CPU_SESSION, CudaSession

    sessions: list[Any] = []

    def session(graph: bytes, settings: Any, *, providers: list[Any]) -> Any:
        if providers == ["CPUExecutionProvider"]:  # the conditioner's, and that of the reference
            return CPU_SESSION(graph, settings, providers=providers)
        sessions.append(CudaSession(graph, [providers[0][0]]))
        return sessions[-1]

    seams = {
        "InferenceSession": session,
        "preload_dlls": lambda: None,
        "set_default_logger_severity": lambda level: None,
        "get_available_providers": lambda: ["CUDAExecutionProvider"],
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(onnxruntime_cuda, "open_device", lambda *_: device))
        for name, seam in seams.items():
            stack.enter_context(patch.object(onnxruntime, name, seam))
        yield sessions


@contextlib.contextmanager
def fake_tensorrt(device: FakeDevice) -> Iterator[None]:
    """Have a TensorRT for RTX, which builds engines for the fake device, and runs them on it."""
    from difftool.compile.engine import target
    from difftool.runtime.backends import tensorrt
    from tests.compile.engine.fake import Said
    from tests.oracles.tensorrt_api import RTX
    from tests.runtime.fake_tensorrt import Played, as_engine

    class Builds(Said):
        def build(self) -> bytes:
            return as_engine(self.graph, [[x[0] for x in each["x"]] for each in self.profiles])

    builds, runs = Builds(RTX).variant, Played(RTX, device).variant
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(target, "installed_variants", lambda: [builds]))
        stack.enter_context(patch.object(target.cuda_device, "open_device", lambda *_: device))
        stack.enter_context(patch.object(tensorrt, "installed_variants", lambda: [runs]))
        stack.enter_context(patch.object(tensorrt, "open_device", lambda *_: device))
        yield


@contextlib.contextmanager
def fake_libraries(device: FakeDevice) -> Iterator[list[Any]]:
    """Have ONNX Runtime and TensorRT on the fake device; gives the sessions of the former."""
    with fake_onnxruntime(device) as sessions, fake_tensorrt(device):
        yield sessions


def a_model(
    kind: str, bundle: Path | str, backend: str, precision: str, folder: Path, **options: Any
) -> Any:
    """Load a model on a GPU, as a user does; what is missing is Absent, all else an error.

    An engine is built first, or a graph in 16 bits, for which a folder is given. With "fake" this
    must be within `fake_libraries`.
    """
    if kind == "fake" and precision == "bf16":
        raise Absent("ONNX Runtime's CPU computes no bf16")
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise Absent("onnxruntime is not installed, and the conditioner needs it") from error
    try:
        if backend == "tensorrt":
            difftool.compile.tensorrt(bundle, precision=precision)
        elif precision in ("fp16", "bf16"):
            bundle = difftool.compile.half(bundle, precision, out=folder / "half").bundle.path
        return difftool.load(bundle, backend=backend, precision=precision, **options)
    except (MissingDependencyError, UsageError) as error:
        raise Absent(error.message) from error


def reference(bundle: Path | str, **options: Any) -> Any:
    """Load the same model on the CPU."""
    return difftool.load(bundle, backend="onnxruntime-cpu", threads=None, **options)
