"""The candidates on a GPU: this runtime's backends, and the peers."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
from common import inside
from common.candidates import COMPILE, EAGER, PIPELINE, Runner, Unavailable
from common.timing import deadline

import difftool
from difftool import Bundle
from difftool.bundle import STEP, read_bundle, step_name
from difftool.runtime import Draws, start_noise
from gpu.timing import BURST

if TYPE_CHECKING:
    from common.models import Setting

HALVES = ("fp16", "bf16")
ALL = ("fp32", "tf32", *HALVES)
IN_TORCH = ("fp32", "tf32", "fp16")
UNTOUCHED = ("fp32", *HALVES)  # engines are built without TF32

Open = Callable[["Setting", str], Runner]  # for a precision


@dataclass(frozen=True)
class Kind:
    """A way to run the model, in these precisions; `slow` is what takes minutes to make ready.

    `ours` are this runtime's, which must agree with PyTorch.
    """

    name: str
    precisions: tuple[str, ...]
    open: Open
    ours: bool = False
    slow: bool = False


def tensorrt(setting: "Setting", precision: str, *, graphs: inside.Graphs) -> Runner:
    """Open an engine for this batch alone, and build it if there is none yet."""
    bundle, size, limit = setting.bundle, setting.size, setting.compile_seconds
    end = time.perf_counter() + limit

    def watch(phase: str, done: int, steps: int) -> None:
        if time.perf_counter() > end:
            raise TimeoutError(f"no engine within {limit:.0f} s, at {phase}")

    # A cache for each batch: of several engines that fit the runtime would take the widest.
    cache = setting.folder / f"engines-{size}"
    with patch.dict(os.environ, {inside.ENGINES_VARIABLE: str(cache)}):
        profile = (size, size, size)
        difftool.compile.tensorrt(bundle, precision=precision, profile=profile, on_build=watch)
        return on_device(inside.open_tensorrt(bundle, precision, graphs=graphs), setting)


def onnxruntime(
    setting: "Setting", precision: str, *, name: str = "onnxruntime-cuda", graphs: bool = True
) -> Runner:
    """Open the step graph in ONNX Runtime; in 16 bits, that of the graph for engines."""
    bundle = in_precision(setting.bundle, precision, setting.folder)
    backend = inside.open_onnxruntime(bundle, name, precision, graphs=graphs)
    with deadline(setting.compile_seconds):
        return on_device(backend, setting, burst=BURST if graphs else 2)


def in_precision(bundle: Bundle, precision: str, folder: Path) -> Bundle:
    """Make a bundle that has the step graph that TensorRT gets, once for a graph.

    TF32 is no matter of the graph.
    """
    if precision not in HALVES:
        return bundle
    import onnx
    from common import inside_torch

    twin = folder / f"{bundle.manifest.files[STEP].sha256[:12]}-{precision}"
    if not twin.is_dir():
        making = folder / f"{twin.name}.{os.getpid()}"
        shutil.copytree(bundle.path, making)
        graph = inside_torch.in_half(onnx.load(bundle.file(STEP)), precision)
        inside_torch.with_files(
            read_bundle(making), {step_name(precision): graph.SerializeToString()}
        )
        making.rename(twin)
    return read_bundle(twin)


def on_device(backend: inside.DeviceBackend, setting: "Setting", burst: int = BURST) -> Runner:
    """Do what `Model.sample` does with a backend on a GPU: all on the device, noise included."""
    program, size = setting.program, setting.size
    batch = backend.batch(program, size)
    draws = Draws(0, np.arange(size), setting.spec.shape)
    x = start_noise(program, draws)

    return Runner(
        batch,
        lambda rows: batch.advance(rows, draws),
        lambda: batch.start(x),
        wait=backend.device.synchronize,
        most=len(program),
        burst=burst,
        graphs=lambda: batch.graphs,
        free=True,
    )


def _in_torch(name: str, *, needs_gpu: bool = False) -> Open:
    """Name a function of `gpu.in_torch`, which imports much."""

    def opened(setting: "Setting", precision: str) -> Runner:
        if needs_gpu and setting.device == "cpu":
            raise Unavailable("this needs a GPU")
        runner: Runner = getattr(import_module("gpu.in_torch"), name)(setting, precision)
        return runner

    return opened


# What may go wrong comes after what may not.
KINDS = (
    Kind("tensorrt, graphs", UNTOUCHED, partial(tensorrt, graphs="pairs"), ours=True),
    Kind("onnxruntime-cuda, graphs", ALL, onnxruntime, ours=True),
    Kind(PIPELINE, IN_TORCH, _in_torch("diffusers_pipeline")),
    Kind(EAGER, IN_TORCH, _in_torch("eager")),
    Kind("torch CUDA graphs", IN_TORCH, _in_torch("captured", needs_gpu=True)),
    Kind("tensorrt, no graphs", UNTOUCHED, partial(tensorrt, graphs="off"), ours=True),
    Kind("onnxruntime-cuda, no graphs", ALL, partial(onnxruntime, graphs=False), ours=True),
    Kind("torchscript", ("fp32",), _in_torch("torchscript"), ours=True),
    Kind("tensorrt, one launch", UNTOUCHED, partial(tensorrt, graphs="loop"), ours=True),
    Kind(COMPILE, IN_TORCH, _in_torch("compiled", needs_gpu=True), slow=True),
    *(
        Kind(name, ("fp32",), partial(onnxruntime, name=name), ours=True, slow=True)
        for name in ("onnxruntime-tensorrt", "onnxruntime-tensorrt-rtx")
    ),
)
OURS = frozenset(kind.name for kind in KINDS if kind.ours)


def all_candidates() -> list[tuple[Kind, str]]:
    """List every candidate in every precision."""
    return [(kind, precision) for kind in KINDS for precision in kind.precisions]


def stages() -> list[list[tuple[Kind, str]]]:
    """List all candidates in the order in which they are opened: what decides comes first."""
    found: list[list[tuple[Kind, str]]] = [[], [], []]
    for kind, precision in sorted(all_candidates(), key=lambda candidate: candidate[0].slow):
        first = ("fp16",) if kind.slow else ("fp32", "fp16")
        found[int(kind.slow) if precision in first else 2].append((kind, precision))
    return found
