"""The installed versions of Python, difftool and the packages that it needs."""

import platform
from collections.abc import Iterable
from importlib import metadata
from typing import TYPE_CHECKING, Final

from difftool import __version__

if TYPE_CHECKING:
    from difftool.runtime import BackendEntry

RUNTIME: Final = ("numpy", "pillow", "pydantic", "rich", "typer")
# The packages that training and exporting need.
MAKING: Final = (
    "accelerate",
    "datasets",
    "safetensors",
    "scikit-learn",
    "tensorboard",
    "onnx",
    "onnx-ir",
    "onnxscript",
)


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Return the versions of Python, difftool and these packages; None for a missing package."""
    found: dict[str, str | None] = {"python": platform.python_version(), "difftool": __version__}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def needed_by(rows: "Iterable[BackendEntry]") -> list[str]:
    """Return the packages that these backends need, each once."""
    return list(dict.fromkeys(package for row in rows for package in row.packages))
