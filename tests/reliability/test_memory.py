"""Memory: it does not grow from call to call, and when it runs out the batch to try is named."""

import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from difftool import runtime
from difftool.bundle import STEP, TORCHSCRIPT, Bundle, read_bundle
from difftool.diffusion.samplers import ddim
from difftool.errors import ResourceError, is_out_of_memory
from difftool.runtime import Model
from difftool.runtime.backends.sessions import run_error
from difftool.runtime.cuda.backend import DeviceBackend
from difftool.runtime.model import load
from difftool.runtime.shipped import find_bundle
from tests.fresh import python
from tests.reliability import commands
from tests.reliability.backends import opened
from tests.reliability.commands import Trouble
from tests.runtime.cuda.fake import FakeBuffer, FakeDevice, FakeEngine

MIB = 1 << 20
MOST_GROWTH = 4 * MIB  # over all counted calls; allocators keep some of what is freed
LEAK = 64 << 10  # bytes a call that must be seen

# Calls of several sizes and programs; prints resident memory after `warm` of them, and after all.
CALLS = """
import os, sys
import difftool

model = difftool.load("ddpm-mnist", backend=sys.argv[1], threads=1, max_batch=2)
warm, count, leak = map(int, sys.argv[2:])
programs = [getattr(difftool.samplers, name)(model.spec, steps=2) for name in ("ddim", "ddpm")]
kept = []
for i in range(warm + count):
    model.sample(programs[i % 2], n=1 + i % 3, seed=i, deterministic=i % 5 == 0)
    kept.append(b"." * leak)
    if i + 1 in (warm, warm + count):
        with open("/proc/self/statm") as file:
            print(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and limits memory")


def growth(backend: str, count: int, leak: int = 0) -> float:
    """Return the MiB of resident memory more after `count` calls than after the first hundred.

    AssertionError if that is more than allocators may keep.
    """
    before, after = map(int, python("-c", CALLS, backend, 100, count, leak).stdout.split())
    grown = after - before
    assert grown <= MOST_GROWTH, f"{grown / MIB:.1f} MiB more after {count} calls"
    return grown / MIB


@linux
@pytest.mark.timeout(3600)  # by night
def test_memory_does_not_grow(nightly: bool, note: Callable[[str], None]) -> None:
    calls = 10_000 if nightly else 100
    for backend in ("onnxruntime-cpu", "openvino") if nightly else ("onnxruntime-cpu",):
        grown = growth(backend, calls)
        note(f"memory, {backend}: {grown:.1f} MiB more after {calls:,} calls")


@linux
def test_memory_that_grows_is_seen() -> None:
    with pytest.raises(AssertionError, match="MiB more after 100 calls"):
        growth("onnxruntime-cpu", 100, leak=LEAK)


def limit(more: int) -> None:
    """Give a model as much address space as it has after a small run, and so many MiB more."""

    def limited(*arguments: Any, **options: Any) -> Model:
        opened = load(*arguments, **options)
        opened.sample(ddim(opened.spec, steps=1), n=1)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        now = pages * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + more * MIB,) * 2)
        return opened

    runtime.load = limited


@linux
@pytest.mark.parametrize(
    ("backend", "size", "more"),
    [("onnxruntime-cpu", 1024, 60), ("openvino", 512, 200), ("torchscript", 4096, 100)],
)
def test_a_batch_without_the_memory(
    backend: str, size: int, more: int, scripted: Callable[[str], Bundle], tmp_path: Path
) -> None:
    """For real: in a process that may not have more; what is written is two lines, and no file."""
    bundle = scripted("ddpm-mnist")
    trust = f"--trust {bundle.manifest.files[TORCHSCRIPT].sha256} --sampler ddim --steps 2"
    line = f"sample {bundle.path} --backend {backend} --max-batch {size} -n {size} --threads 1"
    ended = commands.run(
        f"{line} {trust} --out grid.png", tmp_path, Trouble(defect=partial(limit, more))
    )
    assert ended.err.splitlines() == [
        f"error: no memory for a batch of {size}",
        f"hint: try max_batch {size // 2}",
    ]
    assert (ended.code, ended.out) == (5, "")
    assert not list(tmp_path.glob("*grid*"))


SAID = (
    "std::bad_alloc",
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : ... bfc_arena.cc:376 void* onnxruntime::BFCArena"
    "::AllocateRawInternal(size_t) Failed to allocate memory for requested buffer of size 51380224",
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0 ; hostname=x",
    "Check 'ptr' failed at src/plugins/intel_cpu/src/cpu_memory.cpp:257:\nFailed to allocate 207 "
    "bytes of memory",
    "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 79691776 bytes. Error code 12 (Cannot allocate memory)",
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.78 GiB",
    "CUDA_ERROR_OUT_OF_MEMORY: The API call failed because it was unable to allocate enough memory",
    "CUDNN failure 4000: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    "bad allocation",
)


@pytest.mark.parametrize("words", SAID)
def test_the_words_of_the_libraries(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))
    error = run_error(RuntimeError(words), 12)
    assert (error.exit_code, str(error)) == (5, "no memory for a batch of 12 (try max_batch 6)")


@pytest.mark.parametrize("words", ["Invalid argument", "the allocation of rooms", "no such node"])
def test_other_words_are_another_matter(words: str) -> None:
    assert not is_out_of_memory(RuntimeError(words))
    assert not isinstance(run_error(RuntimeError(words), 12), ResourceError)


def test_numpy_has_no_memory_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """MemoryError anywhere in a run: the buffers of a batch, or the noise."""
    bundle = read_bundle(find_bundle("ddpm-mnist"))
    model = Model(bundle, opened(bundle, "onnxruntime-cpu"), max_batch=8)

    monkeypatch.setattr("difftool.diffusion.noise.normal", Mock(side_effect=MemoryError))
    with pytest.raises(ResourceError, match=r"no memory for a batch of 5 .*max_batch 2"):
        model.sample(ddim(bundle.spec, steps=2), n=5)


def test_a_gpu_has_no_memory() -> None:
    class Full(FakeDevice):
        def allocate(self, shape: Any, dtype: Any) -> FakeBuffer:
            raise ResourceError("no memory for 400 bytes on the GPU") from RuntimeError(
                "CUDA_ERROR_OUT_OF_MEMORY: out of memory"
            )

    device, bundle = Full(), read_bundle(find_bundle("ddpm-mnist"))
    backend = DeviceBackend("fake", bundle, device, FakeEngine(device, bundle.file(STEP)))
    with pytest.raises(ResourceError, match=r"no memory for a batch of 6 .*max_batch 3"):
        backend.batch(ddim(bundle.spec, steps=2), 6)
