"""Compile a bundle's step graph with TensorRT, and keep the engine in the cache or the bundle."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import onnx

from difftool.bundle import (
    PRECISIONS,
    STEP,
    Bundle,
    EngineKey,
    file_entries,
    read_bundle,
    write_manifest,
)
from difftool.compile.engine.build import Progress, build_engine
from difftool.compile.engine.target import CURRENT, Profile, Target, resolve_target
from difftool.compile.lowerings import lowered
from difftool.compile.precision import in_half
from difftool.errors import UsageError
from difftool.files import write_atomic
from difftool.outputs import require_free
from difftool.runtime.backends.table import TF32
from difftool.runtime.engine_cache import EngineCache, Record
from difftool.runtime.engines import RECIPE, graph_name, onnx_sha256
from difftool.runtime.shipped import open_bundle

# An engine is tuned for these batches, if no profile is named: one sample must be fast, and most
# GPUs gain nothing from more than 64 at once.
BATCHES: Final = (1, 16, 64)

_WITHOUT_FP8: Final = ("sm75", "sm80", "sm86")


@dataclass(frozen=True)
class EngineRequest:
    """An engine to build: its GPUs, precision and batch sizes. `engine_request` makes one.

    Without a profile it is tuned for batches of 1, 16 and 64.
    """

    target: Target
    precision: str = "fp32"
    profile: Profile | None = None
    refit: bool = False

    def __post_init__(self) -> None:
        require_precision(self.precision)
        old = [gpu for gpu in self.target.gpus if gpu in _WITHOUT_FP8]
        if self.precision == "fp8" and old:
            raise UsageError(f"{', '.join(old)} has no 8-bit floats", "choose int8 or fp16")


@dataclass(frozen=True)
class CompiledEngine:
    """An engine that TensorRT compiled.

    - `record`: its name, sha256, size in bytes, seconds of the build, and its key
    - `path`: its file, which is `out` or else in the cache
    - `built`: False if it was in the cache already
    """

    record: Record
    path: Path
    built: bool


def engine_request(
    gpus: Sequence[str] = (CURRENT,), precision: str = "fp32", profile: Profile | None = None
) -> EngineRequest:
    """Return a request. Every error that a request can have is found here, before any work.

    Args:
        gpus: compute capabilities such as "sm89", or "current" for the GPU of this machine.
        precision: precision of the network: fp32, tf32, fp16, bf16, int8 or fp8; the rows stay in
            fp32.
        profile: the fewest, the expected and the most samples of a batch. By default the engine
            takes 1 to 64, and is tuned for batches of 1, 16 and 64.

    Raises:
        UsageError: TensorRT does not build for one of the GPUs or in that precision, or the
            profile is out of order.
        MissingDependencyError: no TensorRT is installed, or "current" finds no GPU.
    """
    require_precision(precision)
    if profile is not None and not 1 <= profile[0] <= profile[1] <= profile[2]:
        raise UsageError(
            f"`profile={','.join(map(str, profile))}` is out of order",
            "give min, opt, max with 1 <= min <= opt <= max",
        )
    return EngineRequest(resolve_target(gpus), precision, profile)


def require_precision(precision: str) -> None:
    """Raise UsageError for an unknown precision."""
    known = (*PRECISIONS, TF32)
    if precision not in known:
        raise UsageError(f"unknown precision {precision!r}", f"one of: {', '.join(known)}")


def engine_key(bundle: Bundle, request: EngineRequest) -> EngineKey:
    """Return the key of the engine that a request for a bundle makes."""
    return EngineKey.model_validate(
        {
            "onnx_sha256": onnx_sha256(bundle, request.precision),
            "recipe": RECIPE,
            "flavour": request.target.variant.name,
            "version": request.target.variant.version,
            "gpus": request.target.gpus,
            "precision": request.precision,
            "profile": request.profile or (BATCHES[0], BATCHES[-1], BATCHES[-1]),
            "batches": () if request.profile else BATCHES,
            "refit": request.refit,
        }
    )


def tensorrt(
    bundle: Bundle | Path | str,
    *,
    gpus: Sequence[str] = (CURRENT,),
    precision: str = "fp32",
    profile: Profile | None = None,
    out: Path | str | None = None,
    force: bool = False,
    on_build: Progress | None = None,
) -> CompiledEngine:
    """Compile a bundle's step graph for GPUs with TensorRT, and keep the engine in the cache.

    This works without these GPUs. Sampling finds the engine in the cache by itself.

    Args:
        bundle: a bundle, its folder, or the name of a shipped model.
        gpus: compute capabilities such as "sm89", or "current" for the GPU of this machine.
        precision: precision of the network: fp32, tf32, fp16, bf16, int8 or fp8; the rows stay in
            fp32.
        profile: the fewest, the expected and the most samples of a batch. By default the engine
            takes 1 to 64, and is tuned for batches of 1, 16 and 64.
        out: also write the engine to this file; `force` replaces it.
        on_build: called with the phase, the step and the number of steps of the build.

    Raises:
        UsageError: TensorRT does not build for these GPUs or in this precision, or `out` exists.
        MissingDependencyError: no TensorRT is installed, or "current" finds no GPU.
        ArtefactError: TensorRT does not support the graph, or fails to build it.

    Examples:
        >>> made = difftool.compile.tensorrt("digits.bundle", gpus=("sm89",), precision="fp16")
        >>> made.built, made.record.key.gpus
        (True, ('sm89',))
    """
    if out is not None:
        require_free(Path(out), force=force)
    request = engine_request(gpus, precision, profile)
    name = bundle.path.name if isinstance(bundle, Bundle) else str(bundle)
    made = compile_bundle(open_bundle(bundle), request, model=name, on_progress=on_build)
    if out is None:
        return made
    write_atomic(out, made.path.read_bytes())
    return replace(made, path=Path(out))


def compile_bundle(
    bundle: Bundle,
    request: EngineRequest,
    *,
    model: str | None = None,
    cache: EngineCache | None = None,
    on_progress: Progress | None = None,
) -> CompiledEngine:
    """Return a bundle's engine from the cache, or build it and keep it there.

    `model` is the bundle's name in the record, by default the name of its folder.

    Raises:
        ArtefactError: TensorRT does not support the graph, or fails to build it.
    """
    cache = cache or EngineCache()
    key = engine_key(bundle, request)
    if found := cache.find(key):
        return CompiledEngine(found, cache.path(found), built=False)
    begin = time.perf_counter()
    variant = request.target.variant
    kept = cache.timing_path(variant.name, variant.version, "-".join(request.target.gpus))
    data, timing = build_engine(
        step_graph(bundle, request.precision),
        key,
        variant,
        timing=cache.read(kept),
        on_progress=on_progress,
    )
    seconds = time.perf_counter() - begin
    record = cache.store(key, data, model=model or bundle.path.name, seconds=seconds)
    if timing:
        cache.write(kept, timing)
    return CompiledEngine(record, cache.path(record), built=True)


def step_graph(bundle: Bundle, precision: str) -> onnx.ModelProto:
    """Return the step graph in a precision: the bundle's own, or one made from step.onnx.

    step.onnx is lowered for CPUs, so even in its own precision an engine has another graph.
    """
    name = graph_name(precision)
    if name == STEP:
        return lowered(onnx.load_from_string(bundle.graph(STEP).data))
    if name in bundle.manifest.files:
        return onnx.load_from_string(bundle.graph(name).data)
    if precision == "int8":
        from difftool.compile.quantization.symmetric import in_int8

        return in_int8(bundle)
    if precision == "fp8":
        from difftool.compile.quantization.fp8 import in_fp8

        return in_fp8(bundle)
    return in_half(onnx.load_from_string(bundle.graph(STEP).data), precision)


def add_engine(
    folder: Path, request: EngineRequest, *, model: str, on_progress: Progress | None = None
) -> CompiledEngine:
    """Add the step graph in the request's precision, and its engine, to an unfinished bundle."""
    bundle = read_bundle(folder)
    name = graph_name(request.precision)
    if name not in bundle.manifest.files:
        write_atomic(folder / name, step_graph(bundle, request.precision).SerializeToString())
        bundle = _listed(bundle, {})
    compiled = compile_bundle(bundle, request, model=model, on_progress=on_progress)
    name = engine_name(compiled.record.key)
    write_atomic(folder / name, compiled.path.read_bytes())
    _listed(bundle, {name: compiled.record.key})
    return compiled


def engine_name(key: EngineKey) -> str:
    """Return the name of an engine's file in a bundle."""
    words = "-".join(key.gpus).lower()
    gpus = "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in words)
    return f"step.{key.precision}.{gpus}.engine"


def _listed(bundle: Bundle, engines: dict[str, EngineKey]) -> Bundle:
    """Write a manifest of all files that are there now, and return the bundle."""
    engines = {**bundle.manifest.engines, **engines}
    value = {
        **bundle.manifest.model_dump(mode="json"),
        "files": file_entries(bundle.path),
        "engines": {name: key.model_dump(mode="json") for name, key in engines.items()},
    }
    write_manifest(bundle.path, value)
    return read_bundle(bundle.path)
