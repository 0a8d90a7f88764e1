"""The device protocol on an NVIDIA GPU, through cuda-core. Nothing here runs without a driver."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

from difftool.errors import DifftoolError, MissingDependencyError, ResourceError, first_line
from difftool.runtime.cuda.compile import kept_cubin
from difftool.runtime.cuda.device import Array, Buffer, Launch

_THREADS: Final = 256  # of a block
_NO_GPU: Final = "nvidia-smi must list one; on a CPU use `backend=onnxruntime-cpu`"
_RELEASES: Final = {13: "R580"}  # CUDA -> the first driver for it, from NVIDIA's release notes
_KERNELS: Final = {  # kernel -> the file in `kernels/` that holds it
    "difftool_noise": "noise",
    "difftool_loop": "loop",
    "difftool_gather": "slots",
    "difftool_scatter": "slots",
}


@dataclass(frozen=True)
class DeviceBuffer:
    """An array in a GPU's memory, which is freed with it."""

    memory: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def address(self) -> int:
        """Return where it begins."""
        return int(self.memory.handle)


class CudaDevice:
    """A GPU, a stream of its own on it, and the kernels compiled for it. See `open_device`."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._stream = device.create_stream()
        self._current = self._stream  # the stream of a WHILE node's body while that is captured
        self._kernels: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """Return its name, such as "NVIDIA H100 80GB HBM3"."""
        return str(self._device.name)

    @property
    def number(self) -> int:
        """Return its number, as CUDA counts the GPUs that this process may see."""
        return int(self._device.device_id)

    @property
    def arch(self) -> str:
        """Return its architecture, such as "sm_90"."""
        return f"sm_{self._device.arch}"

    @property
    def stream(self) -> int:
        """Return the handle of the stream to enqueue on."""
        return int(self._current.handle)

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> DeviceBuffer:
        """Allocate an array of zeros."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        with self._errors(f"no memory for {size} bytes on the GPU"):
            memory = self._device.allocate(size, stream=self._stream)
            memory.fill(0, stream=self._stream)
        return DeviceBuffer(memory, tuple(shape), dtype)

    def upload(self, buffer: Buffer, array: Array, at: int | None = None) -> None:
        """Copy an array in; when this returns, the driver has its own copy of pageable memory."""
        from cuda.bindings import driver

        address = _address(buffer, array, at)
        with self._errors("an upload to the GPU failed"):
            _check(
                driver.cuMemcpyHtoDAsync(
                    address, array.ctypes.data, array.nbytes, self._stream.handle
                )
            )

    def clear(self, buffer: Buffer) -> None:
        """Fill a buffer with zeros."""
        with self._errors("the GPU failed"):
            buffer.memory.fill(0, stream=self._stream)  # type: ignore[attr-defined]

    def download(self, buffer: Buffer, out: Array, at: int | None = None) -> None:
        """Wait for the work so far and copy the buffer out, or a part of it."""
        from cuda.bindings import driver

        address = _address(buffer, out, at)
        with self._errors("a download from the GPU failed"):
            _check(
                driver.cuMemcpyDtoHAsync(out.ctypes.data, address, out.nbytes, self._stream.handle)
            )
            self._stream.sync()

    def launch(self, kernel: str, arguments: Sequence[Buffer | np.generic], threads: int) -> None:
        """Run a kernel with at least so many threads."""
        self._launch(kernel, [getattr(item, "memory", item) for item in arguments], threads)

    def capture(self, enqueue: Launch) -> Launch:
        """Capture what `enqueue` puts on the stream as one CUDA graph."""
        with self._building("a CUDA graph could not be captured") as builder:
            enqueue()
            return self._ready(builder.end_building())

    def capture_loop(self, enqueue: Launch, row: Buffer, end: Buffer) -> Launch:
        """Capture it in a WHILE node, whose body has a stream of its own until it is made."""
        failed = "a conditional CUDA graph could not be captured"
        with self._errors(failed):
            self._kernel("difftool_loop")  # code cannot be loaded in the middle of a capture
        with self._building(failed) as builder:
            condition = builder.create_condition(default_value=1)
            body = builder.while_loop(condition)
            self._current = body.stream
            try:
                body.begin_building()
                enqueue()
                pointers = [getattr(item, "memory", item) for item in (row, end)]
                self._launch("difftool_loop", [condition, *pointers], 1)
                body.end_building()
            finally:
                self._current = self._stream
                body.close()
            return self._ready(builder.end_building())

    def synchronize(self) -> None:
        """Wait for the work so far."""
        with self._errors("the GPU failed"):
            self._stream.sync()

    @contextlib.contextmanager
    def _building(self, failed: str) -> Iterator[Any]:
        """Yield a builder of a graph on the stream, which is closed at the end."""
        with self._errors(failed), contextlib.closing(self._stream.create_graph_builder()) as made:
            made.begin_building()
            yield made

    def _ready(self, builder: Any) -> Launch:
        graph = builder.complete()
        graph.upload(self._stream)
        return lambda: graph.launch(self._stream)

    def _launch(self, kernel: str, arguments: Sequence[Any], threads: int) -> None:
        from cuda.core import LaunchConfig, launch

        block = min(threads, _THREADS)
        config = LaunchConfig(grid=-(-threads // block), block=block)
        launch(self._current, config, self._kernel(kernel), *arguments)

    def _kernel(self, name: str) -> Any:
        if name not in self._kernels:
            from cuda.core import ObjectCode

            code = ObjectCode.from_cubin(kept_cubin(_KERNELS[name], self.arch))
            self._kernels[name] = code.get_kernel(name)
        return self._kernels[name]

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn CUDA's errors into ours. Each thread must make the context current first."""
        try:
            self._device.set_current()
            yield
        except DifftoolError:
            raise
        except Exception as error:  # cuda-core's errors have no public base
            hint = "use a smaller max_batch" if "MEMORY" in str(error) else ""
            raise ResourceError(f"{what}: {first_line(error)}", hint) from error


def has_driver() -> bool:
    """Tell if NVIDIA's driver is installed; if not, nothing for a GPU need be loaded."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def too_old_driver() -> str:
    """Say which driver the installed CUDA packages need; "" if that is here, or there is no GPU.

    A driver runs all of its CUDA's major version, so that only that is compared.
    """
    try:
        from cuda.bindings import driver

        here, needed = driver.cuDriverGetVersion()[1], driver.CUDA_VERSION
    except Exception:  # no packages or no driver: each has an error of its own
        return ""
    if here // 1000 >= needed // 1000:
        return ""
    major = needed // 1000
    release = f", which is {_RELEASES[major]} or newer" if major in _RELEASES else ""
    return (
        f"the NVIDIA driver here is for CUDA {here // 1000}.{here % 1000 // 10}, and the installed "
        f"packages need one for CUDA {major}{release}"
    )


def open_device(number: int = 0) -> CudaDevice:
    """Open a GPU by its number, as CUDA counts them: by default the first.

    Raises:
        MissingDependencyError: cuda-core is not installed, or there is no such GPU or no driver for
            it, or one that is too old.
    """
    if not has_driver():
        raise MissingDependencyError("there is no NVIDIA GPU here, or no driver for it", _NO_GPU)
    try:
        from cuda.core import Device
    except ImportError as error:
        raise MissingDependencyError.extra("cuda-core or cuda-bindings", "cuda") from error
    if too_old := too_old_driver():
        raise MissingDependencyError(
            too_old, "install that driver; on a CPU use `backend=onnxruntime-cpu`"
        )
    try:
        count = len(Device.get_all_devices())
        if 0 <= number < count:
            device = Device(number)
            device.set_current()
            return CudaDevice(device)
    except Exception as error:  # no driver and no GPU: each has an error of its own
        raise MissingDependencyError(
            f"no NVIDIA GPU can be used here: {first_line(error)}", _NO_GPU
        ) from error
    raise MissingDependencyError(
        f"there is no GPU {number}: this machine has {count}, counted from 0",
        "choose one of them; CUDA_VISIBLE_DEVICES may hide others" if count else _NO_GPU,
    )


def _check(result: tuple[Any, ...]) -> None:
    if int(result[0]) != 0:
        raise RuntimeError(result[0].name)


def _address(buffer: Buffer, array: Array, at: int | None) -> int:
    """Return where an array lies in a buffer: all of it, or the part that begins at `buffer[at]`.

    Another shape is refused: a copy takes address and size, and would write beyond the buffer.
    """
    if at is None:
        begin, fits = 0, buffer.shape == array.shape
    else:
        begin = at * int(np.prod(buffer.shape[1:])) * buffer.dtype.itemsize
        within = 0 <= at <= buffer.shape[0] - len(array)
        fits = within and buffer.shape[1:] == array.shape[1:]
    if not fits or buffer.dtype != array.dtype or not array.flags.c_contiguous:
        raise ValueError(
            f"{array.dtype}{array.shape} does not fit a buffer of {buffer.dtype}{buffer.shape}"
        )
    return buffer.address + begin
