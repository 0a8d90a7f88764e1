"""The kernels and the graphs of a device, against numpy; without ONNX Runtime.

On a GPU, also under NVIDIA's checker of memory accesses:

    compute-sanitizer --tool memcheck python -m pytest tests/gpu/test_kernels.py -k real
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from difftool.diffusion import noise
from tests.runtime.cuda.fake import FakeDevice

SEED, DRAWS = (0xFEDCBA98 << 32) | 0x76543210, [4, 900, 7, 0xFFFFFFFF]
ROWS, SAMPLES, ELEMENTS = 12, 3, 21

# A step that is no network: x' = x / 2 + z, in place.
TOY = """
extern "C" __global__ void toy(float* x, const float* z, long long* row, int n, int e) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n * e) x[i] = 0.5f * x[i] + z[i];
    if (i < n) row[i] += 1;
}
"""


def uploaded(device: Any, array: np.ndarray) -> Any:
    buffer = device.allocate(array.shape, array.dtype)
    device.upload(buffer, array)
    return buffer


def downloaded(device: Any, buffer: Any) -> np.ndarray:
    values = np.empty(buffer.shape, buffer.dtype)
    device.download(buffer, values)
    return values


def draw(device: Any, out: Any, row: Any, draws: Any, samples: Any, seed: Any) -> None:
    """Launch the noise kernel as the driver does."""
    n, e = out.shape
    sizes = (np.int32(n), np.int32(e), np.int32(draws.shape[0]))
    given = [out, row, draws, samples, seed, np.uint32(noise.SAMPLING), np.float32(1), *sizes]
    device.launch("difftool_noise", given, n * -(-e // 4))


@pytest.mark.parametrize("e", [1, 5, 784, 3073])
def test_normals_are_box_muller_of_the_words_to_4_ulp(device: Any, e: int) -> None:
    """Float64 from the uniforms and angles that the float32 recipe rounds to."""
    samples = np.arange(64, dtype=np.uint32)
    row = np.arange(64) % len(DRAWS)
    out = device.allocate((64, e), np.float32)
    arrays = row, np.uint32(DRAWS), samples, np.full(64, SEED, np.uint64)
    draw(device, out, *(uploaded(device, array) for array in arrays))
    found = downloaded(device, out)
    for at, drawn in enumerate(DRAWS):
        words = noise.words(
            SEED, noise.SAMPLING, drawn, samples[row == at].tolist(), -(-e // 4) * 4
        )
        uniform = words.astype(np.float32) * np.float32(2**-32) + np.float32(2**-33)
        radius = np.sqrt(-2 * np.log(uniform[:, 0::2].astype(np.float64)))
        angle = (np.float32(2 * np.pi) * uniform[:, 1::2]).astype(np.float64)
        exact = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
        exact = exact.reshape(len(words), -1)[:, :e]
        ulps = np.abs(found[row == at] - exact) / np.spacing(np.abs(exact.astype(np.float32)))
        assert ulps.max() <= 4


class Toy:
    """Steps with the noise kernel and the toy step, on buffers of their own."""

    def __init__(self, device: Any) -> None:
        self.device, self.start = device, np.ones((SAMPLES, ELEMENTS), np.float32)
        self.x, self.z = (uploaded(device, self.start) for _ in range(2))
        self.row = uploaded(device, np.zeros(SAMPLES, np.int64))
        self.end = uploaded(device, np.zeros(1, np.int64))
        arrays = np.arange(ROWS, dtype=np.uint32), np.arange(SAMPLES, dtype=np.uint32)
        self.fixed = [uploaded(device, a) for a in (*arrays, np.full(SAMPLES, SEED, np.uint64))]
        self.enqueue()  # code is loaded by the first launch, which no capture may see

    def reset(self, end: int) -> None:
        self.device.upload(self.x, self.start)
        self.device.upload(self.row, np.zeros(SAMPLES, np.int64))
        self.device.upload(self.end, np.array([end]))

    def enqueue(self) -> None:
        """Enqueue a step."""
        draw(self.device, self.z, self.row, *self.fixed)
        if isinstance(self.device, FakeDevice):
            self.device.enqueue("toy", self._on_numpy)
        else:
            self._on_gpu()

    def _on_numpy(self) -> None:
        self.x._array[...] = np.float32(0.5) * self.x._array + self.z._array
        self.row._array += 1

    def _on_gpu(self) -> None:
        from cuda.core import LaunchConfig, Stream, launch

        pointers = [buffer.address for buffer in (self.x, self.z, self.row)]
        config = LaunchConfig(grid=1, block=SAMPLES * ELEMENTS)
        sizes = (np.int32(SAMPLES), np.int32(ELEMENTS))
        stream = Stream.from_handle(self.device.stream)
        launch(stream, config, toy_kernel(self.device.arch), *pointers, *sizes)

    def require(self, rows: int) -> None:
        """Demand that so many steps have been taken since the last reset."""
        x = self.start
        for row in range(rows):
            normals = noise.normal(SEED, row, list(range(SAMPLES)), (ELEMENTS,))
            x = np.float32(0.5) * x + normals
        np.testing.assert_allclose(downloaded(self.device, self.x), x, atol=1e-5)
        assert downloaded(self.device, self.row).tolist() == [rows] * SAMPLES


@cache
def toy_kernel(arch: str) -> Any:
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(name="toy.cu", arch=arch, std="c++17", fma=False)
    return Program(TOY, "c++", options).compile("cubin").get_kernel("toy")


@pytest.fixture
def toy(device: Any) -> Toy:
    return Toy(device)


def replays(graph: Callable[[], None], times: int) -> None:
    for _ in range(times):
        graph()


def test_a_captured_graph_takes_its_steps_whenever_it_is_launched(toy: Toy) -> None:
    def pair() -> None:
        toy.enqueue()
        toy.enqueue()

    toy.reset(0)
    graph = toy.device.capture(pair)
    toy.require(0)  # a capture runs nothing
    for times in (1, 4):
        toy.reset(0)
        replays(graph, times)
        toy.require(2 * times)


def test_a_while_loop_ends_at_the_row_that_memory_holds(toy: Toy) -> None:
    toy.reset(ROWS)
    graph = toy.device.capture_loop(toy.enqueue, toy.row, toy.end)
    toy.require(0)
    for end in (ROWS, 1, 5):  # one graph serves them all
        toy.reset(end)
        graph()
        toy.require(end)
