"""The sides of the GPU benchmark: this runtime's backends, and the peers."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _gpu_timing import BURST, Runner, deadline

from difftool.runtime.cuda.backend import DeviceBackend
from difftool.runtime.cuda.room import Graphs
from difftool.runtime.draws import Draws, start_noise
from difftool.runtime.engine_cache import VARIABLE

if TYPE_CHECKING:
    from _gpu_models import Setting

ALL = ("fp32", "tf32", "fp16", "bf16")
HALF = ("fp16", "bf16")
UNTOUCHED = ("fp32", *HALF)  # engines are built without TF32
PIPELINE, COMPILE = "diffusers pipeline", "torch.compile"


@dataclass(frozen=True)
class SideKind:
    """A way to run the model, in these precisions; `slow` is what takes minutes to make ready.

    `ours` are this runtime's, which must agree with PyTorch.
    """

    name: str
    precisions: tuple[str, ...]
    open: Callable[["Setting", str], Runner]
    ours: bool = False
    slow: bool = False


def tensorrt(setting: "Setting", precision: str, graphs: Graphs) -> Runner:
    """An engine for this batch alone, built where there is none yet."""
    from difftool.export.tensorrt.compile import Request, compile_bundle
    from difftool.export.tensorrt.target import resolve_target
    from difftool.runtime.backends.tensorrt import open_tensorrt

    size = setting.size
    # A cache for each batch: of several engines that fit the runtime would take the widest.
    with _engines_in(setting.work / f"engines-{size}"):
        request = Request(resolve_target(), precision, (size, size, size))
        end = time.perf_counter() + setting.compile_seconds

        def watch(phase: str, done: int, steps: int) -> None:
            if time.perf_counter() > end:
                raise TimeoutError(f"no engine within {setting.compile_seconds:.0f} s, at {phase}")

        compile_bundle(setting.bundle, request, model=setting.case.name, on_progress=watch)
        return on_device(open_tensorrt(setting.bundle, precision, graphs=graphs), setting)


def onnxruntime(
    setting: "Setting", precision: str, name: str = "onnxruntime-cuda", *, graphs: bool = True
) -> Runner:
    """The step graph in ONNX Runtime; in 16 bits, that of the graph for engines."""
    from _gpu_models import in_precision

    from difftool.runtime.backends.onnxruntime_cuda import open_onnxruntime

    bundle = in_precision(setting.bundle, precision, setting.work)
    backend = open_onnxruntime(bundle, name, tf32=precision == "tf32", graphs=graphs)
    with deadline(setting.compile_seconds):
        return on_device(backend, setting, burst=BURST if graphs else 2)


def on_device(backend: DeviceBackend, setting: "Setting", burst: int = BURST) -> Runner:
    """What `Model.sample` does with a backend on a GPU: all on the device, noise included."""
    program, size = setting.program, setting.size
    batch = backend.batch(program, size)
    draws = Draws(0, np.arange(size), setting.spec.shape)
    x = start_noise(program, draws)

    return Runner(
        batch=batch,
        begin=lambda: batch.start(x),
        steps=lambda rows: batch.advance(rows, draws),
        wait=backend.device.synchronize,
        most=len(program),
        burst=burst,
        graphs=lambda: batch.graphs,
        free=True,
    )


def _engine_kind(words: str, graphs: Graphs) -> SideKind:
    return SideKind(
        f"tensorrt, {words}",
        UNTOUCHED,
        lambda setting, precision: tensorrt(setting, precision, graphs),
        ours=True,
    )


def _torch(name: str) -> Callable[["Setting", str], Runner]:
    """A side of `_gpu_torch`, which imports much."""

    def opened(setting: "Setting", precision: str) -> Runner:
        import _gpu_torch

        side: Callable[..., Runner] = getattr(_gpu_torch, name)
        return side(setting, precision)

    return opened


def _torchscript(setting: "Setting", precision: str) -> Runner:
    from _gpu_torch import torchscript

    return torchscript(setting)


def _provider(name: str) -> SideKind:
    def opened(setting: "Setting", precision: str) -> Runner:
        return onnxruntime(setting, precision, name)

    return SideKind(name, ("fp32",), opened, ours=True, slow=True)


# What may go wrong comes after what may not.
KINDS = (
    _engine_kind("graphs", "pairs"),
    SideKind("onnxruntime-cuda, graphs", ALL, onnxruntime, ours=True),
    SideKind(PIPELINE, ("fp32", "tf32", "fp16"), _torch("diffusers_pipeline")),
    SideKind("torch eager", ("fp32", "tf32", "fp16"), _torch("eager")),
    SideKind("torch CUDA graphs", ("fp32", "tf32", "fp16"), _torch("captured")),
    _engine_kind("no graphs", "off"),
    SideKind(
        "onnxruntime-cuda, no graphs",
        ALL,
        lambda setting, precision: onnxruntime(setting, precision, graphs=False),
        ours=True,
    ),
    SideKind("torchscript", ("fp32",), _torchscript, ours=True),
    _engine_kind("one launch", "loop"),
    SideKind(COMPILE, ("fp32", "tf32", "fp16"), _torch("compiled"), slow=True),
    _provider("onnxruntime-tensorrt"),
    _provider("onnxruntime-tensorrt-rtx"),
)
OURS = frozenset(kind.name for kind in KINDS if kind.ours)


def all_sides() -> list[tuple[SideKind, str]]:
    """Every side in every precision."""
    return [(kind, precision) for kind in KINDS for precision in kind.precisions]


def stages() -> list[list[tuple[SideKind, str]]]:
    """All sides in the order in which they are opened: what decides comes first."""
    found: list[list[tuple[SideKind, str]]] = [[], [], []]
    for kind, precision in sorted(all_sides(), key=lambda side: side[0].slow):
        first = ("fp16",) if kind.slow else ("fp32", "fp16")
        found[int(kind.slow) if precision in first else 2].append((kind, precision))
    return found


@contextlib.contextmanager
def _engines_in(folder: Path) -> Iterator[Any]:
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
