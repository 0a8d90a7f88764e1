"""TensorRT's two variants, which share one Python API: TensorRT for RTX, and TensorRT.

TensorRT for RTX builds an engine ahead of time, for GPUs that need not be there. TensorRT builds on
the GPU that will run the engine, and knows the GPUs of data centres.
"""

import importlib
from dataclasses import dataclass
from typing import Any, Final, Literal

from difftool.errors import MissingDependencyError, install_hint, pip_install

Name = Literal["tensorrt-rtx", "tensorrt"]

# What NVIDIA calls a variant, the extra that brings it, and options of pip for that.
_KNOWN: Final[dict[Name, tuple[str, str, str]]] = {
    "tensorrt-rtx": ("TensorRT for RTX", "trt-rtx", ""),
    "tensorrt": ("TensorRT", "trt", "--extra-index-url https://pypi.nvidia.com"),
}
VARIANTS: Final = tuple(_KNOWN)  # the one that needs no GPU first


@dataclass(frozen=True)
class Variant:
    """An installed TensorRT: `module` is its Python package."""

    name: Name
    version: str
    module: Any

    @property
    def title(self) -> str:
        """Return what NVIDIA calls it."""
        return _KNOWN[self.name][0]

    @property
    def by_capability(self) -> bool:
        """Tell if its engines run on all GPUs of a compute capability, not just on one kind."""
        levels = self.module.HardwareCompatibilityLevel.__members__
        return "SAME_COMPUTE_CAPABILITY" in levels  # of TensorRT since 10.9

    @property
    def ahead_of_time(self) -> tuple[str, ...]:
        """Return the compute capabilities that it builds for without such a GPU: "sm75", ..."""
        if self.name != "tensorrt-rtx":
            return ()
        members = self.module.ComputeCapability.__members__
        return tuple(name.lower() for name in members if name.startswith("SM"))


def open_variant(name: Name) -> Variant:
    """Import a variant; MissingDependencyError says how to install it."""
    title, *install = _KNOWN[name]
    try:
        module = importlib.import_module(name.replace("-", "_"))
    except (ImportError, OSError) as error:  # OSError: a library that the package loads is missing
        raise MissingDependencyError(f"{title} is not installed", install_hint(*install)) from error
    return Variant(name, str(module.__version__), module)


def installed_variants() -> list[Variant]:
    """Return the variants that can be imported, the one that needs no GPU first."""
    found = []
    for name in VARIANTS:
        try:
            found.append(open_variant(name))
        except MissingDependencyError:
            continue
    return found


def not_installed() -> MissingDependencyError:
    """Return the error if there is neither variant."""
    (_, *rtx), (_, *data_centre) = (_KNOWN[name] for name in VARIANTS)
    return MissingDependencyError(
        "TensorRT is not installed",
        f"{install_hint(*rtx)}, or for GPUs of data centres: {pip_install(*data_centre)}",
    )


def install_line(name: Name) -> str:
    """Return the command that installs a variant."""
    _, *install = _KNOWN[name]
    return pip_install(*install)
