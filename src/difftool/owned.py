"""What of a folder is ours: the files that it lists, and nothing else. Only those are deleted."""

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath

from difftool.errors import UsageError

# The files of an output, by their path from its folder; a UsageError where the folder is no such.
Listing = Callable[[Path], Collection[str]]

_NAMED = 3  # of what else is there, in an error


def require_owned(path: Path, listing: Listing) -> None:
    """UsageError where a folder is not what `listing` knows, or holds anything else."""
    found = [name for name, ours in _inside(path, listing(path)) if not ours]
    if found:
        more = [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
        *names, last = [*sorted(found)[:_NAMED], *more]
        told = f"{', '.join(names)} and {last}" if names else last
        raise UsageError(
            f"{path} also holds {told}, so it is not replaced",
            "choose another name, or move that elsewhere",
        )


def remove_owned(path: Path, names: Collection[str]) -> None:
    """Delete these files of a folder, and the folder, unless something else is in it.

    What cannot be deleted stays.
    """
    for name, ours in _inside(path, names):
        if ours:
            _try(os.unlink, path / name)
    for folder in sorted(_folders(names), reverse=True):  # those inside before those around them
        _try(os.rmdir, path / folder)


def _inside(path: Path, names: Collection[str], within: str = "") -> Iterator[tuple[str, bool]]:
    """The path of each file in a folder from there, and whether it is one of `names`.

    A link, a folder without one of `names` in it and anything else are never one of them.
    """
    with os.scandir(path / within) as entries:
        found = list(entries)
    for entry in found:
        name = within + entry.name
        if entry.is_dir(follow_symlinks=False) and name in _folders(names):
            yield from _inside(path, names, name + "/")
        else:
            yield name, name in names and entry.is_file(follow_symlinks=False)


def _folders(names: Collection[str]) -> set[str]:
    """The folders that hold files of these names, from "." on."""
    return {str(parent) for name in names for parent in PurePosixPath(name).parents}


def _try(operation: Callable[[Path], None], path: Path) -> None:
    with contextlib.suppress(OSError):
        operation(path)
