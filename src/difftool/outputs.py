"""Places to write to, checked before any work is done for what is written there."""

import os
from pathlib import Path

from difftool.errors import ResourceError, UsageError


def require_free(path: Path, *, force: bool) -> None:
    """Refuse a file that could not be written at the end, or would be lost.

    Raises:
        UsageError: it is a folder, stands there without `force`, or lies in a bundle.
        ResourceError: its folder cannot be written to.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder", "give the name of a file")
    if path.exists() and not force:
        raise UsageError(f"{path} exists", "choose another name, or `force` to replace it")
    require_place(path)


def require_place(path: Path) -> None:
    """Refuse a file or folder whose parent is no folder, is read-only or is a bundle."""
    folder = _folder_above(path)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ResourceError(f"cannot write into {folder}", "choose another folder")
    require_no_bundle(path)


def require_no_bundle(path: Path) -> None:
    """Refuse a file or folder inside a bundle, which holds its own files alone."""
    folder = _folder_above(path)
    if (folder / "bundle.json").exists():
        raise UsageError(f"{folder} is a bundle, which holds nothing else", "choose another folder")


def _folder_above(path: Path) -> Path:
    """Return the innermost folder around a path that is there, links followed."""
    real = Path(os.path.realpath(path))
    return next((parent for parent in real.parents if parent.exists()), real)
