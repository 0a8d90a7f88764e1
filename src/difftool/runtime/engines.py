"""Engines, which are step graphs compiled for GPUs: which one fits, and which one may run.

An engine is machine code. One is run only if this user's difftool built it, which the cache
remembers, or if the user names its sha256.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from difftool.bundle import STEP, Bundle, EngineKey, step_name
from difftool.errors import ArtefactError, MissingDependencyError
from difftool.runtime.backends.table import TF32
from difftool.runtime.engine_cache import EngineCache, key_digest

# Raised when `compile` makes other graphs, or builds another engine of the same graph.
RECIPE: Final = 2


@dataclass(frozen=True)
class Engine:
    """An engine that may run."""

    path: Path
    key: EngineKey
    sha256: str

    def read(self) -> bytes:
        """Return the engine's bytes; ArtefactError if they differ from its digest."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise ArtefactError(
                f"cannot read the engine {self.path}: {error.strerror}", "build it again"
            ) from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ArtefactError(f"the engine {self.path} differs from its digest", "build it again")
        return data


@dataclass(frozen=True)
class Wanted:
    """The engine that can run here: `gpu` is the GPU's compute capability and its name."""

    variant: str
    version: str
    gpu: tuple[str, str]
    precision: str = "fp32"


def profiles(key: EngineKey) -> list[tuple[int, int, int]]:
    """Return the fewest, the expected and the most samples of each profile of an engine.

    An engine for several batches has a profile for each. They do not overlap.
    """
    if not key.batches:
        return [key.profile]
    fewest = (key.profile[0], *(size + 1 for size in key.batches[:-1]))
    return [(least, most, most) for least, most in zip(fewest, key.batches, strict=True)]


def graph_name(precision: str) -> str:
    """Return the file name of the step graph that an engine of a precision is compiled from.

    For int8 it is not the graph of a CPU, whose activations are not symmetric. TF32 is a way to
    compute the graph of float32.
    """
    if precision == "int8":
        return "step.int8-symmetric.onnx"
    return STEP if precision == TF32 else step_name(precision)


def onnx_sha256(bundle: Bundle, precision: str) -> str:
    """Return the digest that the keys of a bundle's engines of this precision hold."""
    files = bundle.manifest.files
    return files.get(graph_name(precision), files[STEP]).sha256


def find_engines(bundle: Bundle, *, trusted: Collection[str] = ()) -> list[Engine]:
    """Return the engines of a bundle's graphs: those in it first, then those in the cache.

    `trusted` are sha256 digests. ArtefactError if the bundle has an engine that neither this user
    built nor `trusted` names, and the cache has none.
    """
    cache = EngineCache()
    kept = [Engine(cache.path(each), each.key, each.sha256) for each in cache.records()]
    allowed = {engine.sha256 for engine in kept} | set(trusted)
    inside = [
        Engine(bundle.file(name), key, bundle.manifest.files[name].sha256)
        for name, key in bundle.manifest.engines.items()
    ]
    foreign = [engine for engine in inside if engine.sha256 not in allowed]
    engines = [
        engine
        for engine in (*inside, *kept)
        if engine.sha256 in allowed
        and engine.key.recipe == RECIPE
        and engine.key.onnx_sha256 == onnx_sha256(bundle, engine.key.precision)
    ]
    if foreign and not engines:
        raise ArtefactError(
            f"{foreign[0].path} was built elsewhere; its sha256 is {foreign[0].sha256}",
            "an engine is machine code: if you trust its maker give that sha256 as `trust`, "
            f"or build your own: difftool compile {bundle.path} --trt",
        )
    return engines


def choose_engine(engines: Iterable[Engine], wanted: Wanted, bundle: Bundle) -> Engine:
    """Return the engine to run: the fitting one with the widest profile.

    MissingDependencyError if none fits; it says for what the nearest was built instead.
    """
    found = [(misfits(engine.key, wanted), engine) for engine in engines]
    if fitting := [engine for lacks, engine in found if not lacks]:
        # Of equally large ones that of the smallest batches: below its profile a batch is padded.
        return max(fitting, key=lambda engine: (engine.key.profile[2], -engine.key.profile[0]))
    target = wanted.gpu[0] if wanted.variant == "tensorrt-rtx" else "current"
    hint = (
        f"run: difftool compile {bundle.path} --trt --precision {wanted.precision} --gpu {target}"
    )
    if not found:
        raise MissingDependencyError(f"{bundle.path} has no engine yet", hint)
    lacks = min((lacks for lacks, _ in found), key=len)
    raise MissingDependencyError(f"no engine of {bundle.path} fits: {'; '.join(lacks)}", hint)


def misfits(key: EngineKey, wanted: Wanted) -> list[str]:
    """Say why an engine must not run here; an empty list if it may."""
    built, here = f"{key.flavour} {key.version}", f"{wanted.variant} {wanted.version}"
    reasons = []
    if built != here:
        reasons.append(f"it was built by {built}, and here is {here}")
    if not set(key.gpus) & set(wanted.gpu):
        reasons.append(f"it is for {', '.join(key.gpus)}, and here is {wanted.gpu[0]}")
    if key.precision != wanted.precision:
        reasons.append(f"it computes in {key.precision}, not {wanted.precision}")
    return reasons


def widening(bundle: Bundle, key: EngineKey, size: int) -> str:
    """Return the command that makes the same engine for batches of up to `size`, too."""
    least, most = min(key.profile[0], size), max(key.profile[2], size)
    return f"{_compiling(bundle, key)} --profile {least},{most},{most}"


def rebuilding(bundle: Bundle, key: EngineKey) -> str:
    """Return the commands that build the same engine again, which the cache would give back."""
    profile = "" if key.batches else f" --profile {','.join(map(str, key.profile))}"
    return f"difftool cache rm {key_digest(key)[:12]}, then: {_compiling(bundle, key)}{profile}"


def _compiling(bundle: Bundle, key: EngineKey) -> str:
    gpus = "current" if key.flavour == "tensorrt" else ",".join(key.gpus)
    return f"difftool compile {bundle.path} --trt --precision {key.precision} --gpu {gpus}"


def no_gpu(engines: Iterable[Engine], reason: str) -> MissingDependencyError:
    """Return the error of a machine without a GPU; it says for what the engines here are good."""
    described = dict.fromkeys(
        f"{engine.key.precision} for {', '.join(engine.key.gpus)}"
        for engine in engines
        if engine.read()
    )
    good = f"; the engine is good, {' and '.join(described)}" if described else ""
    return MissingDependencyError(
        f"{reason}{good}", "run it on such a GPU, or here with `backend=onnxruntime-cpu`"
    )


def differences(found: EngineKey, wanted: EngineKey) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two keys differ: name -> (the first's value, the second's)."""
    pairs = {name: (getattr(found, name), getattr(wanted, name)) for name in EngineKey.model_fields}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
