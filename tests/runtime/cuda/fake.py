"""A stand-in for a GPU: the kernels' host build, and ONNX Runtime's CPU for the engine.

Work is done at once, but for what a capture records, which only a launch of the graph does. `log`
holds what was asked for, in order; `waits` counts how often the host waited.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import DTypeLike

from difftool.errors import ArtefactError, ResourceError
from difftool.runtime.cuda.device import Array, Bound, Launch
from tests.runtime.cuda import host


@dataclass(eq=False)
class FakeBuffer:
    """An array that the driver sees only through the device."""

    _array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._array.dtype

    @property
    def address(self) -> int:
        return self._array.ctypes.data


@dataclass
class FakeDevice:
    """The device protocol on numpy arrays."""

    name = "a fake GPU"
    number: int = 0
    log: list[str] = field(default_factory=list)
    waits: int = 0
    buffers: int = 0
    captures: int = 0
    limit: float = float("inf")  # of `bytes`
    sent: list[int] = field(default_factory=list)  # the bytes of each upload
    read: list[int] = field(default_factory=list)  # and of each download
    threads: set[int] = field(default_factory=set)  # that worked on it
    live: WeakSet[Any] = field(default_factory=WeakSet)  # buffers and graphs that are held
    refused: tuple[str, ...] = ()  # of "graph" and "loop": what cannot be captured
    _recording: list[tuple[str, Launch]] | None = None

    @property
    def stream(self) -> int:
        return 7 if self._recording is None else 8

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> FakeBuffer:
        assert self._recording is None, "allocated in a capture"
        self.buffers += 1
        buffer = FakeBuffer(np.zeros(shape, dtype))
        if self.bytes + buffer._array.nbytes > self.limit:
            raise ResourceError("CUDA_ERROR_OUT_OF_MEMORY")
        self.live.add(buffer)
        return buffer

    @property
    def bytes(self) -> int:
        """Return how much of its memory is taken."""
        return sum(held._array.nbytes for held in self.live if isinstance(held, FakeBuffer))

    @property
    def graphs(self) -> int:
        """Return how many captured graphs are held."""
        return sum(not isinstance(held, FakeBuffer) for held in self.live)

    def clear(self, buffer: FakeBuffer) -> None:
        assert self._recording is None, "cleared in a capture"
        self.log.append("clear")
        buffer._array[...] = 0

    def upload(self, buffer: FakeBuffer, array: Array, at: int | None = None) -> None:
        assert self._recording is None, "uploaded in a capture"
        part = self._part(buffer, array, at)
        self.log.append("upload")
        self.sent.append(array.nbytes)
        self.threads.add(threading.get_ident())
        part[...] = array

    def download(self, buffer: FakeBuffer, out: Array, at: int | None = None) -> None:
        assert self._recording is None, "downloaded in a capture"
        part = self._part(buffer, out, at)
        self.log.append("download")
        self.read.append(out.nbytes)
        self.threads.add(threading.get_ident())
        self.waits += 1
        out[...] = part

    def launch(self, kernel: str, arguments: Sequence[Any], threads: int) -> None:
        values = [getattr(argument, "_array", argument) for argument in arguments]
        assert threads > 0
        self.enqueue(kernel, lambda: host.launch(kernel, *values))

    def capture(self, enqueue: Launch) -> Launch:
        recorded = self._record("graph", enqueue)
        name = "graph(" + " ".join(name for name, _ in recorded) + ")"

        def replay() -> None:
            self.log.append(name)
            for _, work in recorded:
                work()

        return self._captured(replay)

    def capture_loop(self, enqueue: Launch, row: FakeBuffer, end: FakeBuffer) -> Launch:
        recorded = self._record("loop", enqueue)
        name = "while(" + " ".join(name for name, _ in recorded) + ")"

        def replay() -> None:
            self.log.append(name)
            again = True
            while again:
                for _, work in recorded:
                    work()
                again = bool(row._array[0] < end._array[0])  # as kernels/loop.cu

        return self._captured(replay)

    def synchronize(self) -> None:
        self.waits += 1

    def _part(self, buffer: FakeBuffer, array: Array, at: int | None) -> Array:
        part = buffer._array if at is None else buffer._array[at : at + len(array)]
        assert (part.shape, part.dtype) == (array.shape, array.dtype)
        assert array.flags.c_contiguous
        return part

    def enqueue(self, name: str, work: Launch) -> None:
        """Do work, or record it within a capture."""
        self.threads.add(threading.get_ident())
        if self._recording is not None:
            self._recording.append((name, work))
        else:
            self.log.append(name)
            work()

    def _captured(self, replay: Launch) -> Launch:
        self.captures += 1
        self.live.add(replay)
        return replay

    def _record(self, kind: str, enqueue: Launch) -> list[tuple[str, Launch]]:
        assert self._recording is None, "a capture within a capture"
        if kind in self.refused:
            raise ResourceError(f"a {kind} could not be captured")
        self._recording = []
        try:
            enqueue()
            return self._recording
        finally:
            self._recording = None


class FakeEngine:
    """A step graph on ONNX Runtime's CPU, which like an engine has a profile."""

    best = 4

    def __init__(
        self,
        device: FakeDevice,
        step: Path,
        *,
        sizes: tuple[int, int] = (1, 64),
        capturable: bool = True,
        fails: str = "",
    ) -> None:
        """Open a step graph; `fails` says when its runs do: "captured", or "always"."""
        import onnxruntime  # here, as the tests of kernels alone run without it

        options, on_cpu = onnxruntime.SessionOptions(), ["CPUExecutionProvider"]
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(step, options, providers=on_cpu)
        self._device = device
        self.sizes, self._capturable, self.fails = sizes, capturable, fails
        self.kept = 0
        self.bound: list[int] = []  # the samples of each binding
        self.inputs = frozenset(node.name for node in self._session.get_inputs())

    def wider(self, size: int) -> str:
        return f"compile one for {size}"

    def bind(self, sides: Sequence[Mapping[str, FakeBuffer]]) -> Bound:
        self.bound.append(sides[0]["x"].shape[0])
        runs = [self._enqueue(index, tensors) for index, tensors in enumerate(sides)]
        ran = {f"step{index}" for index in range(len(sides))}

        def keep() -> None:
            assert ran <= set(self._device.log), "not all sides have run"
            self.kept += 1

        return Bound(runs, self._capturable, keep)

    def _enqueue(self, index: int, tensors: Mapping[str, FakeBuffer]) -> Callable[[], None]:
        outputs = [node.name for node in self._session.get_outputs()]
        assert set(tensors) == self.inputs | set(outputs)
        first, fewest, most = True, *self.sizes
        assert fewest <= tensors["x"].shape[0] <= most

        def run() -> None:
            feed = {name: tensors[name]._array for name in self.inputs}
            found = self._session.run(outputs, feed)
            for name, value in zip(outputs, found, strict=True):
                tensors[name]._array[...] = value

        def enqueue() -> None:
            nonlocal first
            assert not first or self._device._recording is None, "the first run was captured"
            first = False
            if self.fails == "always" or (self.fails and self._device._recording is not None):
                raise ArtefactError("the engine failed to run", "build it again")
            self._device.enqueue(f"step{index}", run)

        return enqueue
