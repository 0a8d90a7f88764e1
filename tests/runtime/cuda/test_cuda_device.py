"""The real device's own code: on a `cuda.core` whose memory is the host's, and without a driver.

What only a GPU can show, `benchmarks/gpu.py` shows.
"""

import ctypes
import threading
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from difftool.errors import MissingDependencyError, ResourceError
from difftool.runtime.cuda import cuda_device
from difftool.runtime.cuda.compile import cubin
from difftool.runtime.cuda.cuda_device import CudaDevice, open_device
from difftool.runtime.cuda.owner import Owner
from tests.runtime.cuda import host

core = pytest.importorskip("cuda.core")
driver = pytest.importorskip("cuda.bindings.driver")


class Memory:
    """A `cuda.core.Buffer` of the host's memory."""

    def __init__(self, size: int) -> None:
        self._bytes = np.full(size, 0xAB, np.uint8)
        self.handle = self._bytes.ctypes.data

    def fill(self, value: int, *, stream: Any) -> None:
        self._bytes[...] = value


class Stream:
    """Notes what is put on it, and hands out graph builders."""

    def __init__(self, log: list[str], handle: int) -> None:
        self.log, self.handle = log, handle

    def sync(self) -> None:
        self.log.append("sync")

    def create_graph_builder(self) -> "Builder":
        return Builder(self)


class Builder:
    """A `cuda.core.GraphBuilder`, with its rules on what may follow what."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self._state = stream, "new"
        self._bodies: list[Builder] = []

    def begin_building(self) -> "Builder":
        assert self._state == "new"
        self._state = "building"
        self.stream.log.append(f"begin {self.stream.handle}")
        return self

    def end_building(self) -> "Builder":
        assert self._state == "building"
        assert all(body._state == "closed" for body in self._bodies)
        self._state = "ended"
        self.stream.log.append(f"end {self.stream.handle}")
        return self

    def create_condition(self, default_value: int) -> str:
        assert self._state == "building"
        return f"condition {default_value}"

    def while_loop(self, condition: str) -> "Builder":
        assert self._state == "building"
        self._bodies.append(Builder(Stream(self.stream.log, 99)))
        return self._bodies[-1]

    def complete(self) -> Any:
        assert self._state == "ended"
        log = self.stream.log
        return SimpleNamespace(
            upload=lambda stream: None,
            launch=lambda stream: log.append(f"graph on {stream.handle}"),
        )

    def close(self) -> None:
        assert self._state != "closed"
        self._state = "closed"
        self.stream.log.append(f"close {self.stream.handle}")


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def gpu(log: list[str], monkeypatch: pytest.MonkeyPatch) -> CudaDevice:
    """A device whose kernels are the host's build, run at once."""

    def launch(stream: Any, config: Any, kernel: str, *arguments: Any) -> None:
        (grid, *_), (block, *_) = config.grid, config.block
        log.append(f"{kernel} on {stream.handle}: {grid} x {block}")
        if kernel == "difftool_noise":
            host.library().difftool_noise(
                *(
                    np.ctypeslib.as_ctypes_type(value.dtype)(value.item())
                    if isinstance(value, np.generic)
                    else ctypes.c_void_p(value.handle)
                    for value in arguments
                )
            )

    def copy(target: int, source: int, size: int, stream: Any) -> tuple[Any]:
        ctypes.memmove(target, source, size)
        return (driver.CUresult.CUDA_SUCCESS,)

    def load(code: bytes) -> Any:
        assert code.startswith(b"\x7fELF")
        return SimpleNamespace(get_kernel=lambda name: name)

    monkeypatch.setattr(core, "launch", launch)
    monkeypatch.setattr(core, "ObjectCode", SimpleNamespace(from_cubin=load))
    monkeypatch.setattr(driver, "cuMemcpyHtoDAsync", copy)
    monkeypatch.setattr(driver, "cuMemcpyDtoHAsync", copy)
    return CudaDevice(core_device(log))


def core_device(log: list[str], number: int = 0) -> Any:
    """Return as much of a `cuda.core.Device` as is used; it notes who made it current."""
    device = SimpleNamespace(name="a GPU", arch="90", device_id=number, users=set())
    device.set_current = lambda: device.users.add(threading.get_ident())
    device.create_stream = lambda: Stream(log, 5)
    device.allocate = lambda size, *, stream: Memory(size)
    return device


def test_arrays_begin_as_zeros_and_come_back_as_they_went(gpu: CudaDevice, log: list[str]) -> None:
    buffer = gpu.allocate((2, 3), np.int64)
    out = np.ones((2, 3), np.int64)
    gpu.download(buffer, out)
    assert not out.any()
    sent = np.arange(6).reshape(2, 3)
    gpu.upload(buffer, sent)
    assert log == ["sync"]
    gpu.download(buffer, out)
    assert np.array_equal(out, sent)
    gpu.clear(buffer)
    gpu.download(buffer, out)
    assert not out.any()
    assert log == ["sync"] * 3


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, 2), np.int64), np.zeros((2, 3)), np.zeros((3, 2), np.int64).T]
)
def test_a_copy_of_another_shape_or_type_is_refused(gpu: CudaDevice, wrong: np.ndarray) -> None:
    buffer = gpu.allocate((2, 3), np.int64)
    for copy in (gpu.upload, gpu.download):
        with pytest.raises(ValueError, match="does not fit a buffer of int64"):
            copy(buffer, wrong)


def test_a_part_is_copied_by_where_it_begins(gpu: CudaDevice) -> None:
    buffer = gpu.allocate((4, 2, 3), np.float32)
    part = np.ones((2, 2, 3), np.float32)
    gpu.upload(buffer, part, 1)
    whole, one = np.empty((4, 2, 3), np.float32), np.empty((1, 2, 3), np.float32)
    gpu.download(buffer, whole)
    assert whole[:, 0, 0].tolist() == [0, 1, 1, 0]
    for at, expected in enumerate([0, 1, 1, 0]):
        gpu.download(buffer, one, at)
        assert (one == expected).all()
    for at, wrong in ((3, part), (-1, part), (0, part[:, 0]), (0, part.astype(np.float64))):
        for copy in (gpu.upload, gpu.download):
            with pytest.raises(ValueError, match="does not fit a buffer of float32"):
                copy(buffer, wrong, at)


def test_a_kernels_arguments_and_threads(gpu: CudaDevice, log: list[str]) -> None:
    n, e = 3, 500
    noise = gpu.allocate((n, e), np.float32)
    row, draws = gpu.allocate((n,), np.int64), gpu.allocate((4,), np.uint32)
    samples, seed = gpu.allocate((n,), np.uint32), gpu.allocate((n,), np.uint64)
    gpu.upload(samples, np.array([4, 0, 9], np.uint32))
    numbers = [np.uint32(0), np.float32(1), np.int32(n), np.int32(e), np.int32(4)]
    gpu.launch("difftool_noise", [noise, row, draws, samples, seed, *numbers], n * 125)
    assert log == ["difftool_noise on 5: 2 x 256"]
    out = np.empty((n, e), np.float32)
    gpu.download(noise, out)
    assert out.std() == pytest.approx(1, abs=0.1)


def test_a_capture_is_launched_later_and_on_the_stream(gpu: CudaDevice, log: list[str]) -> None:
    graph = gpu.capture(lambda: log.append(f"work on {gpu.stream}"))
    assert log == ["begin 5", "work on 5", "end 5", "close 5"]
    log.clear()
    graph()
    assert log == ["graph on 5"]


def test_a_loops_body_is_captured_on_its_own_stream(gpu: CudaDevice, log: list[str]) -> None:
    row, end = gpu.allocate((3,), np.int64), gpu.allocate((1,), np.int64)
    graph = gpu.capture_loop(lambda: log.append(f"work on {gpu.stream}"), row, end)
    assert log == [
        *("begin 5", "begin 99", "work on 99", "difftool_loop on 99: 1 x 1", "end 99", "close 99"),
        *("end 5", "close 5"),
    ]
    log.clear()
    graph()
    assert (log, gpu.stream) == (["graph on 5"], 5)


@pytest.mark.parametrize("loop", [False, True])
def test_a_failed_capture_is_closed(gpu: CudaDevice, log: list[str], loop: bool) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: not in a capture\nmore")

    buffer = gpu.allocate((1,), np.int64)
    arguments = (fail, buffer, buffer) if loop else (fail,)
    capture = gpu.capture_loop if loop else gpu.capture
    with pytest.raises(ResourceError, match=r"captured: CUDA_ERROR_STREAM_CAPTURE.*a capture$"):
        capture(*arguments)
    assert log[-1] == "close 5"
    assert gpu.stream == 5
    gpu.synchronize()


def test_short_memory_is_a_resource_error(gpu: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    full = RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed")
    monkeypatch.setattr(gpu._device, "allocate", Mock(side_effect=full))
    with pytest.raises(ResourceError, match=r"no memory for 400 bytes .*smaller max_batch"):
        gpu.allocate((100,), np.float32)
    failed = (driver.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,)
    monkeypatch.undo()
    monkeypatch.setattr(driver, "cuMemcpyHtoDAsync", lambda *_: failed)
    with pytest.raises(ResourceError, match=r"upload .* failed: CUDA_ERROR_ILLEGAL_ADDRESS"):
        gpu.upload(gpu.allocate((1,), np.int64), np.zeros(1, np.int64))


@pytest.mark.parametrize("name", cuda_device._KERNELS)
def test_every_kernel_is_in_the_file_that_it_is_taken_from(name: str) -> None:
    for arch in ("sm_80", "sm_90", "sm_120"):
        assert name.encode() in cubin(cuda_device._KERNELS[name], arch)


def test_cuda_core_has_what_the_device_asks_of_it() -> None:
    asked = {
        core.Device: "name arch device_id get_all_devices create_stream set_current allocate",
        core.Stream: "handle sync create_graph_builder",
        core.Buffer: "handle fill",
        core.ObjectCode: "from_cubin get_kernel",
        core.graph.GraphBuilder: (
            "stream begin_building end_building create_condition while_loop complete close"
        ),
        core.graph.Graph: "upload launch",
    }
    for kind, names in asked.items():
        assert [name for name in names.split() if not hasattr(kind, name)] == [], kind


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_device, "has_driver", lambda: False)
    with pytest.raises(MissingDependencyError, match=r"no NVIDIA GPU here.*nvidia-smi"):
        open_device()


def test_a_driver_without_a_gpu_says_why_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    none = RuntimeError("CUDA_ERROR_NO_DEVICE: none\nand a long story")
    monkeypatch.setattr(cuda_device, "has_driver", lambda: True)
    monkeypatch.setattr(core, "Device", Mock(get_all_devices=Mock(side_effect=none)))
    with pytest.raises(MissingDependencyError) as caught:
        open_device()
    assert caught.value.message == "no NVIDIA GPU can be used here: CUDA_ERROR_NO_DEVICE: none"


@pytest.fixture
def two_gpus(log: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A machine with two GPUs, as cuda-core sees it."""
    devices = [core_device(log, number) for number in range(2)]
    monkeypatch.setattr(cuda_device, "has_driver", lambda: True)
    monkeypatch.setattr(core, "Device", Mock(side_effect=devices.__getitem__))
    core.Device.get_all_devices = lambda: tuple(devices)
    return devices


@pytest.mark.parametrize("number", [2, -1])
def test_a_gpu_that_is_not_there_is_refused_with_how_many_are(
    two_gpus: list[Any], number: int
) -> None:
    with pytest.raises(MissingDependencyError, match=f"no GPU {number}: this machine has 2,"):
        open_device(number)
    assert not any(device.users for device in two_gpus)


def test_each_gpu_is_current_on_its_own_thread(two_gpus: list[Any]) -> None:
    opened = [open_device(number) for number in range(2)]
    assert (open_device().number, [device.number for device in opened]) == (0, [0, 1])
    owners = Owner(), Owner()
    for device in two_gpus:
        device.users.clear()
    for _ in range(2):
        for owner, device in zip(owners, opened, strict=True):
            owner.call(lambda device=device: device.allocate((1,), np.int64))
    threads = [{owner.call(threading.get_ident)} for owner in owners]
    assert [device.users for device in two_gpus] == threads


def test_a_driver_that_is_too_old_says_which_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_device, "has_driver", lambda: True)
    monkeypatch.setattr(driver, "CUDA_VERSION", 13050)
    monkeypatch.setattr(driver, "cuDriverGetVersion", lambda: (0, 12040))
    gpus = Mock(get_all_devices=lambda: range(4))
    monkeypatch.setattr(core, "Device", gpus)
    with pytest.raises(MissingDependencyError) as caught:
        open_device()
    assert caught.value.message == (
        "the NVIDIA driver here is for CUDA 12.4, and the installed packages need one for CUDA 13, "
        "which is R580 or newer"
    )
    for here in (13000, 14000):  # an older minor version runs the packages of a newer one
        monkeypatch.setattr(driver, "cuDriverGetVersion", lambda: (0, here))  # noqa: B023
        assert cuda_device.too_old_driver() == ""
        open_device(3)
    gpus.assert_called_with(3)
