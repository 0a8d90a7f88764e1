"""What of a folder is ours: the files that it lists, and nothing else. Only those are deleted."""

import contextlib
import os
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath

from difftool.errors import UsageError

# The files of an output, by their path from its folder; a UsageError if the folder is no such.
Listing = Callable[[Path], Collection[str]]

_NAMED = 3  # of what else is there, in an error


def require_owned(path: Path, listing: Listing) -> None:
    """UsageError if a folder is not what `listing` knows, or holds anything else."""
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
    """Delete these files of a folder, and the folder, unless something else is in it.

    What cannot be deleted stays.
    """
    for name, kind in _entries(path, names, within):
        if kind == "folder":
            remove_owned(path, names, name + "/")
        elif kind == "file":
            _try(os.unlink, path / name)
    _try(os.rmdir, path / within)


def _others(path: Path, names: Collection[str], within: str = "") -> list[str]:
    """What a folder holds besides these files, by its path from there."""
    found = []
    for name, kind in _entries(path, names, within):
        if kind == "folder":
            found += _others(path, names, name + "/")
        elif kind == "other":
            found.append(name)
    return found


def _entries(path: Path, names: Collection[str], within: str) -> list[tuple[str, str]]:
    """What stands in a folder, by its path from `path`, and whether it is ours.

    A "file" is one of `names`, and a "folder" is above one. Anything else, and a link whatever its
    name, is an "other". So a name that leads out of the folder names nothing.
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


def _try(operation: Callable[[Path], None], path: Path) -> None:
    with contextlib.suppress(OSError):
        operation(path)
