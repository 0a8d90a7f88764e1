"""The table of backends: a backend is one file, and one row here that names it.

Opening, `difftool doctor`, `verify` and the hints of errors all read this table. The file of a
backend is imported when a bundle is opened with it, and not before.

A package of somebody else adds a row of its own by an entry point, in its pyproject.toml:

    [project.entry-points."difftool.backends"]
    mine = "my_package:ROW"

`ROW` is a BackendEntry of the name `mine`. Such a backend is taken by name only, so that installing
a package changes nobody's samples.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from difftool.bundle import PRECISIONS
from difftool.errors import MissingDependencyError, UsageError, first_line

GROUP: Final = "difftool.backends"
# Not a precision of a graph: on a GPU, products may round their factors to 10 bits of mantissa.
TF32: Final = "tf32"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options with which a backend is opened.

    - `name`: the row's name, since several rows may share a file
    - `threads`: those of a CPU; None is all cores
    - `device`: the number of the GPU, from 0; 0 for a backend that has no devices by number
    - `trusted`: the sha256 of engines, TorchScript and packages made elsewhere that may run
    """

    name: str
    precision: str
    threads: int | None
    device: int
    trusted: Collection[str]


@dataclass(frozen=True, kw_only=True)
class BackendEntry:
    """A row of the table.

    - `name`: the word for it after `--backend`
    - `opener`: "module:function"; the function takes a Bundle and Asked, and returns a Backend. It
      raises MissingDependencyError if something that it needs is missing
    - `packages`: those that it needs, by pip's names, each with the extra that brings it
    - `precisions`: those that it computes in; others are refused before it is opened
    - `automatic`: the precisions in which it is taken if no backend is named: the first row that
      has the wanted one and works
    - `gpu`: it needs an NVIDIA GPU
    - `numbered`: it has devices by number, and runs on the one that it is asked for
    - `untried`: why `difftool doctor` takes no step with it, after "since it"
    """

    name: str
    opener: str
    packages: Mapping[str, str]
    precisions: tuple[str, ...] = ("fp32",)
    automatic: tuple[str, ...] = ()
    gpu: bool = False
    numbered: bool = False
    untried: str = ""


_CUDA: Final = {"cuda-core": "cuda", "cuda-bindings": "cuda", "nvidia-cuda-nvrtc": "cuda"}
_TENSORRT: Final = {"tensorrt-rtx": "trt-rtx", "tensorrt": "trt"}  # either of them
_CPU: Final = {"onnxruntime": "cpu"}  # it runs the conditioner of other backends, too
_GPU: Final = {"onnxruntime-gpu": "gpu", **_CUDA}
_BUILDS: Final = "builds its engine while one waits"

# They are tried in this order, the fastest first. Unasked, 16 bits are computed on GPUs only: most
# CPUs take longer in them than in float32. The int8 of `difftool quantize` is made for CPUs;
# TensorRT's is another graph with other samples, and is taken by name.
BACKENDS: Final = (
    BackendEntry(
        name="tensorrt",
        opener="difftool.runtime.backends.tensorrt:open_asked",
        packages={**_TENSORRT, **_CUDA, **_CPU},
        precisions=(*PRECISIONS, TF32),
        automatic=("fp32", TF32, "fp16", "bf16", "fp8"),
        gpu=True,
        numbered=True,
    ),
    BackendEntry(
        name="onnxruntime-cuda",
        opener="difftool.runtime.backends.onnxruntime_cuda:open_asked",
        packages=_GPU,
        precisions=("fp32", TF32, "fp16", "bf16"),
        automatic=("fp32", TF32, "fp16", "bf16"),
        gpu=True,
        numbered=True,
    ),
    BackendEntry(
        name="onnxruntime-tensorrt",
        opener="difftool.runtime.backends.onnxruntime_cuda:open_asked",
        packages=_GPU,
        gpu=True,
        numbered=True,
        untried=_BUILDS,
    ),
    BackendEntry(
        name="onnxruntime-tensorrt-rtx",
        opener="difftool.runtime.backends.onnxruntime_cuda:open_asked",
        packages=_GPU,
        gpu=True,
        numbered=True,
        untried=_BUILDS,
    ),
    BackendEntry(
        name="onnxruntime-cpu",
        opener="difftool.runtime.backends.onnxruntime_cpu:open_asked",
        packages=_CPU,
        precisions=("fp32", "fp16", "int8", "fp8"),  # it has no products in bfloat16
        automatic=("fp32", "int8"),
    ),
    BackendEntry(
        name="openvino",
        opener="difftool.runtime.backends.openvino:open_asked",
        packages={"openvino": "openvino"},
        precisions=("fp32", "bf16", "int8"),
    ),
    BackendEntry(
        name="torchscript",
        opener="difftool.runtime.backends.torchscript:open_asked",
        packages={"torch": "train", **_CPU},
        untried="runs code of the bundle",
    ),
    BackendEntry(
        name="aot-inductor",
        opener="difftool.runtime.backends.aot_inductor:open_asked",
        packages={"torch": "train", **_CPU},
        precisions=("fp32", "fp16", "bf16"),
        numbered=True,
        untried="runs code of the bundle",
    ),
)
"""All backends, in the order in which they are tried."""


def backend_names() -> tuple[str, ...]:
    """Return the names of all backends, those of other packages last."""
    return (*(entry.name for entry in BACKENDS), *_others())


def find_backend(name: str) -> BackendEntry:
    """Return the row of a name.

    Raises:
        UsageError: there is no backend of that name.
        MissingDependencyError: the backend of another package cannot be imported.
    """
    for entry in BACKENDS:
        if entry.name == name:
            return entry
    others = _others()
    if name not in others:
        raise UsageError(f"unknown backend {name!r}", f"one of: auto, {', '.join(backend_names())}")
    point, hint = others[name], "install its package again, or remove it"
    try:
        found = point.load()
    except Exception as error:  # code of others may raise anything
        raise MissingDependencyError(
            f"{point.value}, backend {name}, cannot be imported: {first_line(error)}", hint
        ) from error
    if not isinstance(found, BackendEntry) or found.name != name:
        raise MissingDependencyError(f"{point.value} is no BackendEntry of the name {name}", hint)
    return found


def _others() -> dict[str, EntryPoint]:
    """Return the backends that other packages name; our own names stay ours."""
    ours = {entry.name for entry in BACKENDS}
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in ours}
