"""TensorRT's two variants, which share one Python API: TensorRT for RTX, and TensorRT.

TensorRT for RTX builds an engine ahead of time, for GPUs that need not be there; TensorRT builds on
the GPU that will run it, and knows the data centre's.
"""

import importlib
from dataclasses import dataclass
from typing import Any, Final, Literal

from difftool.errors import MissingDependencyError

Name = Literal["tensorrt-rtx", "tensorrt"]

VARIANTS: Final[tuple[Name, ...]] = ("tensorrt-rtx", "tensorrt")

_INSTALL: Final[dict[Name, str]] = {
    "tensorrt-rtx": "pip install 'difftool[trt-rtx]'",
    "tensorrt": "pip install --extra-index-url https://pypi.nvidia.com 'difftool[trt]'",
}
_TITLE: Final[dict[Name, str]] = {"tensorrt-rtx": "TensorRT for RTX", "tensorrt": "TensorRT"}


@dataclass(frozen=True)
class Variant:
    """An installed TensorRT: `module` is its Python package."""

    name: Name
    version: str
    module: Any

    @property
    def title(self) -> str:
        """What NVIDIA calls it."""
        return _TITLE[self.name]

    @property
    def ahead_of_time(self) -> tuple[str, ...]:
        """The compute capabilities that it builds for without such a GPU; ("sm75", "sm80", ...)."""
        if self.name != "tensorrt-rtx":
            return ()
        members = self.module.ComputeCapability.__members__
        return tuple(name.lower() for name in members if name.startswith("SM"))


def open_variant(name: Name) -> Variant:
    """A variant by name; MissingDependencyError says how to install it."""
    try:
        module = importlib.import_module(name.replace("-", "_"))
    except (ImportError, OSError) as error:  # OSError: a library that the package loads is missing
        raise MissingDependencyError(
            f"{_TITLE[name]} is not installed", f"run: {_INSTALL[name]}"
        ) from error
    return Variant(name, str(module.__version__), module)


def installed_variants() -> list[Variant]:
    """The variants that can be imported, the one that needs no GPU first."""
    found = []
    for name in VARIANTS:
        try:
            found.append(open_variant(name))
        except MissingDependencyError:
            continue
    return found


def not_installed() -> MissingDependencyError:
    """The error if there is neither variant."""
    return MissingDependencyError(
        "TensorRT is not installed",
        f"run: {_INSTALL['tensorrt-rtx']}, or for GPUs of data centres: {_INSTALL['tensorrt']}",
    )


def install_line(name: Name) -> str:
    """The command that installs a variant."""
    return _INSTALL[name]
