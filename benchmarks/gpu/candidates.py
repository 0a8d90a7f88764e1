"""The candidates on a GPU: this runtime's backends, and the peers."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import product
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

if TYPE_CHECKING:
    from common.models import Setting

GRAPHED, AOT = "torch CUDA graphs", "AOTInductor, CUDA graphs"
HALVES = ("fp16", "bf16")
ALL = ("fp32", "tf32", *HALVES)
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
    setting: "Setting",
    precision: str,
    *,
    name: str = "onnxruntime-cuda",
    graphs: bool = True,
    lowering: str = "plain",
    options: Mapping[str, str] | None = None,
) -> Runner:
    """Open the step graph in ONNX Runtime; in 16 bits, that of the graph for engines.

    `options` are of the CUDA provider, instead of what the runtime chooses.
    """
    bundle = in_precision(setting.bundle, precision, setting.folder, lowering)
    with deadline(setting.compile_seconds), _with_options(options or {}):
        backend = inside.open_onnxruntime(bundle, name, precision, graphs=graphs)
        return on_device(backend, setting)


@contextlib.contextmanager
def _with_options(options: Mapping[str, str]) -> Iterator[None]:
    """Change options of the GPU's provider in the sessions that are opened meanwhile.

    The runtime offers none of them, so this patches its call of the library.
    """
    if not options:
        yield
        return
    import onnxruntime as library

    real = library.InferenceSession

    def session(graph: bytes, settings: object, *, providers: list) -> object:
        changed = [p if isinstance(p, str) else (p[0], {**p[1], **options}) for p in providers]
        return real(graph, settings, providers=changed)

    with patch.object(library, "InferenceSession", session):
        yield


def in_precision(bundle: Bundle, precision: str, folder: Path, lowering: str = "plain") -> Bundle:
    """Make the bundle whose step graph is the one that TensorRT gets, once for a graph.

    TF32 is no matter of the graph. With the "contrib" lowering its norms and attention are ONNX
    Runtime's own operators.
    """
    if precision not in HALVES and lowering == "plain":
        return bundle
    import onnx
    from common import inside_torch

    from gpu.contrib import with_contrib

    lower = {"plain": inside_torch.in_half, "contrib": with_contrib}[lowering]
    twin = folder / f"{bundle.manifest.files[STEP].sha256[:12]}-{precision}-{lowering}"
    if not twin.is_dir():
        making = folder / f"{twin.name}.{os.getpid()}"
        shutil.copytree(bundle.path, making)
        graph = lower(onnx.load(bundle.file(STEP)), precision)
        name = step_name(precision if precision in HALVES else "fp32")
        inside_torch.with_files(read_bundle(making), {name: graph.SerializeToString()})
        making.rename(twin)
    return read_bundle(twin)


def on_device(backend: inside.DeviceBackend, setting: "Setting") -> Runner:
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
    Kind(GRAPHED, ALL, _in_torch("captured", needs_gpu=True)),
    Kind(EAGER, ALL, _in_torch("eager")),
    Kind(PIPELINE, ("fp32", "tf32", "fp16"), _in_torch("diffusers_pipeline")),
    Kind("tensorrt, no graphs", UNTOUCHED, partial(tensorrt, graphs="off"), ours=True),
    Kind("onnxruntime-cuda, no graphs", ALL, partial(onnxruntime, graphs=False), ours=True),
    Kind("torchscript", ("fp32",), _in_torch("torchscript"), ours=True),
    Kind("tensorrt, one launch", UNTOUCHED, partial(tensorrt, graphs="loop"), ours=True),
    Kind(COMPILE, ALL, _in_torch("compiled", needs_gpu=True), slow=True),
    Kind(AOT, ALL, _in_torch("aot_inductor", needs_gpu=True), slow=True),
    *(
        Kind(name, ("fp32",), partial(onnxruntime, name=name), ours=True, slow=True)
        for name in ("onnxruntime-tensorrt", "onnxruntime-tensorrt-rtx")
    ),
)
OURS = frozenset(kind.name for kind in KINDS if kind.ours)


# ONNX Runtime's options of its CUDA provider, by our words for them in a table.
_OPTIONS = {
    "tf32": "use_tf32",
    "nhwc": "prefer_nhwc",
    "bias": "fuse_conv_bias",
    "search": "cudnn_conv_algo_search",
}


def _swept(lowering: str, precision: str, **values: str) -> tuple[Kind, str]:
    name = ", ".join([lowering, *(f"{word}={value}" for word, value in values.items())])
    options = {_OPTIONS[word]: value for word, value in values.items()}
    opened = partial(onnxruntime, lowering=lowering, options=options)
    return Kind(f"onnxruntime-cuda, {name}", (precision,), opened, ours=True), precision


# What is likeliest to be best comes first; without TF32 no type gets tensor cores, so that is last.
SWEEP = [
    *(
        _swept(lowering, precision, tf32="1", nhwc=nhwc, bias="1", search="HEURISTIC")
        for lowering, precision, nhwc in (
            ("contrib", "fp16", "1"),
            ("contrib", "fp16", "0"),
            ("plain", "bf16", "1"),
            ("plain", "bf16", "0"),
            ("contrib", "bf16", "1"),
        )
    ),
    *(
        _swept("plain", "fp16", tf32=tf32, nhwc=nhwc, bias=bias, search=search)
        for tf32, search, nhwc, bias in product(
            "10", ("HEURISTIC", "EXHAUSTIVE", "DEFAULT"), "10", "10"
        )
    ),
]


def all_candidates() -> list[tuple[Kind, str]]:
    """List every candidate in every precision, those of the sweep last."""
    return [*((kind, precision) for kind in KINDS for precision in kind.precisions), *SWEEP]
