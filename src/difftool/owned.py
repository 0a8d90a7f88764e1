"""Ownership of folders: only the files that an output of ours lists are ever deleted."""

import contextlib
import os
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath

from difftool.errors import UsageError

# Return the files of an output, by their path from its folder; UsageError if it is another folder.
Listing = Callable[[Path], Collection[str]]

_NAMED = 3  # other files that an error names


def require_owned(path: Path, listing: Listing) -> None:
    """Raise UsageError if `listing` does not know a folder, or the folder holds anything else."""
    found = _others(path, listing(path))
    if found:
        more = [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
        *names, last = [*sorted(found)[:_NAMED], *more]
        told = f"{', '.join(names)} and {last}" if names else last
        raise UsageError(
            f"{path} also holds {told}, so it is not replaced",
            "choose another name, or move that elsewhere",
        )


def remove_owned(path: Path, names: Collection[str], within: str = "") -> None:
    """Delete these files of a folder, and the folder itself if nothing else is in it.

    Files that cannot be deleted stay.
    """
    for name, kind in _entries(path, names, within):
        if kind == "folder":
            remove_owned(path, names, name + "/")
        elif kind == "file":
            with contextlib.suppress(OSError):
                os.unlink(path / name)
    with contextlib.suppress(OSError):
        os.rmdir(path / within)


def _others(path: Path, names: Collection[str], within: str = "") -> list[str]:
    """List all that a folder holds besides these files, by its path from there."""
    found = []
    for name, kind in _entries(path, names, within):
        if kind == "folder":
            found += _others(path, names, name + "/")
        elif kind == "other":
            found.append(name)
    return found


def _entries(path: Path, names: Collection[str], within: str) -> list[tuple[str, str]]:
    """List the entries of a folder, by their path from `path`, and their kinds.

    A "file" is one of `names`, and a "folder" is above one. Anything else is an "other", and so is
    a link of any name. So a name that leads out of the folder matches nothing.
    """
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    found = []
    with os.scandir(path / within) as entries:
        for entry in entries:
            name = within + entry.name
            if entry.is_dir(follow_symlinks=False) and name in folders:
                found.append((name, "folder"))
            elif entry.is_file(follow_symlinks=False) and name in names:
                found.append((name, "file"))
            else:
                found.append((name, "other"))
    return found
