"""Where `difftool sample` writes to: a file, stdout, or a folder with a file for each sample."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from difftool.errors import UsageError
from difftool.files import atomic_directory, destination, read_limited, write_atomic
from difftool.outputs import require_free, require_place

STDOUT: Final = "-"
INDEX: Final = "metadata.jsonl"  # the name in the `datasets` library's layout of folders of images
_LIMIT: Final = 256 << 20  # bytes of an index


@dataclass(frozen=True)
class Target:
    """A place to write to: a file, a folder in which each sample gets a file, or stdout."""

    path: Path
    folder: bool = False
    stdout: bool = False

    def __str__(self) -> str:
        if self.stdout:
            return "stdout"
        return f"{self.path}/" if self.folder else str(self.path)

    def write(self, data: bytes) -> str:
        """Write a file or to stdout; return the sha256."""
        if self.stdout:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            write_atomic(self.path, data)
        return hashlib.sha256(data).hexdigest()

    def write_each(
        self,
        files: Iterable[bytes],
        suffix: str,
        labels: Sequence[int | None] | None,
        *,
        force: bool,
    ) -> str:
        """Write files 00000 and so on into a new folder, with an index; return the index's sha256.

        A line of the index is a JSON object: `file_name`, `index`, `sha256` of the file, and
        `label`, if the model has classes; null is no class.
        """
        lines = []
        with atomic_directory(self.path, replace=_replaced(force)) as folder:
            for index, data in enumerate(files):
                name = f"{index:05}.{suffix}"
                (folder / name).write_bytes(data)
                line: dict[str, Any] = {"file_name": name, "index": index}
                if labels is not None:
                    line["label"] = labels[index]
                lines.append(line | {"sha256": hashlib.sha256(data).hexdigest()})
            listed = "".join(json.dumps(line) + "\n" for line in lines).encode()
            (folder / INDEX).write_bytes(listed)
        return hashlib.sha256(listed).hexdigest()


def choose_target(out: str, *, force: bool, json: bool) -> Target:
    """Return what --out names, after a check that it can be written.

    UsageError if it cannot, as `require_free` and `destination` say.
    """
    if out == STDOUT:
        if json:
            raise UsageError("--json and --out - both write to stdout", "leave one of them out")
        if sys.stdout.isatty():
            raise UsageError("stdout is a terminal", "send it to a file: --out - > samples.png")
        return Target(Path(STDOUT), stdout=True)
    path = Path(out)
    if out.endswith(("/", os.sep)):
        destination(path, replace=_replaced(force))
        require_place(path)
        return Target(path, folder=True)
    if path.is_dir():
        raise UsageError(f"{path} is a folder", f"write {path}/ for a file for each sample")
    require_free(path, force=force)
    return Target(path)


def _replaced(force: bool) -> Callable[[Path], Collection[str]]:
    return _listed if force else _nothing


def _nothing(folder: Path) -> Collection[str]:
    """List no file: an empty folder may be replaced without --force."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file", "choose another name")
    if any(folder.iterdir()):
        raise UsageError(f"{folder} exists", "choose another name, or `force` to replace it")
    return ()


def _listed(folder: Path) -> Collection[str]:
    """List the files of a folder that `Target.write_each` has made, or none of an empty one."""
    if folder.is_dir() and not any(folder.iterdir()):
        return ()
    if not (folder / INDEX).is_file():
        raise UsageError(f"{folder} is no folder of samples", "choose another name")
    try:
        lines = read_limited(folder / INDEX, _LIMIT).decode().splitlines()
        names = [json.loads(line)["file_name"] for line in lines]
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise UsageError(f"{folder / INDEX} is no index of samples", "choose another") from error
    return {INDEX, *map(str, names)}
