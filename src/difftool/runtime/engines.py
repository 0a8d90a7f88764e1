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
from difftool.runtime.engine_cache import EngineCache

RECIPE: Final = 1  # raised when `compile.precision` or `compile.quantization` makes other graphs

_BUILD: Final = "difftool compile {} --trt --precision {} --gpu {} --profile {},{},{}"


@dataclass(frozen=True)
class Engine:
    """An engine that may run; `size` is in bytes."""

    path: Path
    key: EngineKey
    sha256: str
    size: int

    def read(self) -> bytes:
        """The engine's bytes; ArtefactError if they are not those of its digest."""
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
    """What an engine must be to run here: `gpu` is the GPU's compute capability and its name."""

    variant: str
    version: str
    gpu: tuple[str, str]
    precision: str = "fp32"


def graph_name(precision: str) -> str:
    """The file name of the step graph that an engine of a precision is compiled from.

    For int8 it is another one than that of a CPU, whose activations are not symmetric.
    """
    return "step.int8-symmetric.onnx" if precision == "int8" else step_name(precision)


def onnx_sha256(bundle: Bundle, precision: str) -> str:
    """The digest that the keys of a bundle's engines of this precision hold."""
    files = bundle.manifest.files
    own = files.get(graph_name(precision))
    return own.sha256 if own else files[STEP].sha256


def engines_of(
    bundle: Bundle, *, trusted: Collection[str] = (), cache: EngineCache | None = None
) -> list[Engine]:
    """The engines of a bundle, those in it first, then those in the cache.

    `trusted` are sha256 digests. ArtefactError if the bundle has an engine that is neither of
    this user's nor among them, and there is none in the cache.
    """
    cache = cache or EngineCache()
    engines: list[Engine] = []
    foreign: list[Engine] = []
    own = {record.sha256 for record in cache.records()}
    for name, key in bundle.manifest.engines.items():
        path, entry = bundle.file(name), bundle.manifest.files[name]
        engine = Engine(path, key, entry.sha256, entry.size)
        (engines if entry.sha256 in own | set(trusted) else foreign).append(engine)
    engines += [
        Engine(cache.path(record), record.key, record.sha256, record.size)
        for record in cache.records()
    ]
    engines = [engine for engine in engines if _of(engine.key, bundle)]
    if foreign and not engines:
        raise ArtefactError(
            f"{foreign[0].path} was built elsewhere; its sha256 is {foreign[0].sha256}",
            "an engine is machine code: if you trust its maker say --trust and that sha256, "
            f"or build your own: difftool compile {bundle.path} --trt",
        )
    return engines


def choose_engine(engines: Iterable[Engine], wanted: Wanted, bundle: Bundle) -> Engine:
    """The engine to run, of those whose key fits that with the widest profile.

    Raises:
        MissingDependencyError: none fits; says what the nearest was built for instead.
    """
    engines = list(engines)
    found = [(misfits(engine.key, wanted), engine) for engine in engines]
    fitting = [engine for lacks, engine in found if not lacks]
    if fitting:
        return max(fitting, key=lambda engine: engine.key.profile[2])
    target = wanted.gpu[0] if wanted.variant == "tensorrt-rtx" else "current"
    hint = (
        f"run: difftool compile {bundle.path} --trt --precision {wanted.precision} --gpu {target}"
    )
    if not found:
        raise MissingDependencyError(f"{bundle.path} has no engine yet", hint)
    lacks, _ = min(found, key=lambda pair: len(pair[0]))
    raise MissingDependencyError(f"no engine of {bundle.path} fits: {'; '.join(lacks)}", hint)


def misfits(key: EngineKey, wanted: Wanted) -> list[str]:
    """Why an engine must not run here, in words; empty if it may."""
    checks = {
        f"it was built by {key.flavour} {key.version}, and here is "
        f"{wanted.variant} {wanted.version}": (key.flavour, key.version)
        == (wanted.variant, wanted.version),
        f"it is for {', '.join(key.gpus)}, and here is {wanted.gpu[0]}": bool(
            set(key.gpus) & set(wanted.gpu)
        ),
        f"it computes in {key.precision}, not {wanted.precision}": key.precision
        == wanted.precision,
    }
    return [reason for reason, holds in checks.items() if not holds]


def widening(bundle: Bundle, key: EngineKey, size: int) -> str:
    """The command that makes the same engine for batches of up to `size`, too."""
    least, _, most = key.profile
    most = max(most, size)
    gpus = "current" if key.flavour == "tensorrt" else ",".join(key.gpus)
    return _BUILD.format(bundle.path, key.precision, gpus, min(least, size), most, most)


def no_gpu(engines: Iterable[Engine], reason: str) -> MissingDependencyError:
    """The error of a machine without a GPU, which says what the engines at hand are good for."""
    described = dict.fromkeys(
        f"{engine.key.precision} for {', '.join(engine.key.gpus)}"
        for engine in engines
        if engine.read()
    )
    good = f"; the engine is good, {' and '.join(described)}" if described else ""
    return MissingDependencyError(
        f"{reason}{good}", "run it on such a GPU, or here with --backend onnxruntime-cpu"
    )


def differences(found: EngineKey, wanted: EngineKey) -> dict[str, tuple[Any, Any]]:
    """The fields in which two keys differ: name -> what the first has, what the second has."""
    pairs = {name: (getattr(found, name), getattr(wanted, name)) for name in EngineKey.model_fields}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _of(key: EngineKey, bundle: Bundle) -> bool:
    """Whether an engine was made from this bundle's graph, as this difftool makes it."""
    return key.recipe == RECIPE and key.onnx_sha256 == onnx_sha256(bundle, key.precision)
