"""Read and write files so that none is ever half-written: temporary name, fsync, rename.

A killed process leaves hidden files behind, whose names `final_name` recognizes.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from difftool.errors import ArtefactError, DifftoolError, ResourceError, UsageError
from difftool.owned import Listing, remove_owned, require_owned
from difftool.undo import undoing

JSON_LIMIT = 1 << 20  # bytes; a manifest is a few kB
JSON_DEPTH = 32

_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2
_AT_FDCWD = -100
_LINUX, _WINDOWS = sys.platform == "linux", sys.platform == "win32"
# A system's answers if it can never do something, as opposed to just not this time.
_UNSUPPORTED = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def write_atomic(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`; a reader sees the old file or the new one, never a part.

    UsageError if `path` is something other than a file, such as a device.
    """
    with _disk_errors(path):
        real = _followed(path)
        if real.exists() and not real.is_file():
            raise UsageError(f"{path} is not a file", "give the name of a file")
        temporary, parents = _temporary(real), _missing(real.parent)

        def undo() -> None:
            temporary.unlink(missing_ok=True)
            _remove(parents)

        with undoing(undo):
            _make(parents)
            _write(temporary, data)
            os.replace(temporary, real)
            _sync_directory(real.parent)  # so that the new name survives a loss of power


def destination(path: Path | str, *, replace: Listing | None = None) -> Path:
    """Return the folder that `path` names if a new one may be written there; links are followed.

    An existing folder may be replaced if `replace` lists its files and it holds no others.

    Raises:
        UsageError: there is something that may not be replaced; the message names it.
    """
    path, real = Path(path), _followed(path)
    while (before := _identity(real)) is not None:
        if replace is None:
            raise _exists(path)
        try:
            require_owned(path, replace)
        except (FileNotFoundError, UsageError):
            if _identity(real) == before:
                raise
            continue  # another process has replaced it meanwhile, so look again
        break
    return real


@contextlib.contextmanager
def atomic_directory(path: Path | str, *, replace: Listing | None = None) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` if the block ends well, and vanishes if not.

    With `replace` it changes places with the folder at `path`. Then the old files that `replace`
    lists are deleted, one by one. On Linux the change is one step, so that a whole folder is at
    `path` at any moment.

    Raises:
        UsageError: something at `path` may not be replaced, even if it came there only after the
            block began; see `destination`.
    """
    with _disk_errors(path):
        real = destination(path, replace=replace)
        temporary, parents, made = _temporary(real), _missing(real.parent), None

        def clear() -> None:
            """Delete the folder of the temporary name: the new one or, after `_move`, the old."""
            found = _identity(temporary)
            if replace is None or made is None or found == made:
                shutil.rmtree(temporary, ignore_errors=True)
            elif found is not None:
                with contextlib.suppress(DifftoolError):  # it is not an output of ours: leave it
                    remove_owned(temporary, replace(temporary))

        def undo() -> None:
            clear()
            _remove(parents)

        with undoing(undo):
            _make(parents)
            os.mkdir(temporary)
            made = _identity(temporary)
            yield temporary
            # The files must be on the disk before the name is, or a crash could leave empty ones.
            for file in sorted(temporary.rglob("*")):
                _sync(file)
            _sync(temporary)
            _move(temporary, real, replace=replace)
            _sync_directory(real.parent)  # before what stood there is deleted
            clear()


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder among the system's temporary files, which is gone after the block."""
    import tempfile

    folder = _temporary(Path(tempfile.gettempdir(), "difftool"))

    def clear() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    with undoing(clear):
        os.mkdir(folder, 0o700)
        yield folder
        clear()


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Lock a folder against other processes of ours; make it if it is not there.

    The system frees the lock when the process ends, in whatever way. Windows and some file systems
    have no such lock; there the folder is not locked.

    Raises:
        UsageError: another process holds the lock, and `wait` is False.
    """
    made = _missing(folder)
    with _disk_errors(folder), undoing(lambda: _remove(made)):
        _make(made)
        if _WINDOWS:
            yield
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            _lock(descriptor, folder, wait=wait)
            yield
        finally:
            os.close(descriptor)


def final_name(name: str) -> str | None:
    """Return the name that a file of this temporary name is meant to get; None for other names."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]+", name, re.DOTALL)
    return found and found[1]


def file_sha256(path: Path | str) -> str:
    """Return the hex sha256 of a whole file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path | str, *, limit: int = JSON_LIMIT) -> Any:
    """Read a JSON file of at most `limit` bytes; ArtefactError if it is not one."""
    return parse_json(read_limited(path, limit), path)


def read_limited(path: Path | str, limit: int = JSON_LIMIT) -> bytes:
    """Return the bytes of a file; ArtefactError if it has more than `limit` or cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ArtefactError(
            f"cannot read {path}: {error.strerror}", "check its name and permissions"
        ) from error
    if len(data) > limit:
        raise ArtefactError(
            f"{path} is larger than {limit} bytes", "check that it is the right file"
        )
    return data


def parse_json(data: bytes, path: Path | str) -> Any:
    """Return the value of JSON bytes that come from `path`.

    ArtefactError if they are not JSON, repeat a key, nest deeper than JSON_DEPTH, or hold half of
    a surrogate pair or a number that is not finite.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique_keys)
        _check_json(value)
        return value
    except (ValueError, RecursionError) as error:
        raise ArtefactError(
            f"{path} is not valid JSON: {str(error)[:100]}", "copy or make it again"
        ) from error


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically. Floats keep every bit."""
    write_atomic(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _check_json(value: Any) -> None:
    """Raise ValueError if a value nests too deep, or holds half a character or an infinity."""
    level = [value]
    for _ in range(JSON_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                "".join(item).encode()  # raises UnicodeEncodeError, a ValueError, for half a pair
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, str):
                item.encode()
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("a number is not finite")
        level = inner
    if any(isinstance(item, dict | list) for item in level):
        raise ValueError(f"it nests more than {JSON_DEPTH} deep")


def _lock(descriptor: int, folder: Path, *, wait: bool) -> None:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(
            f"another process is at work in {folder}", "wait for it, or choose another folder"
        ) from error
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _write(path: Path, data: bytes) -> None:
    binary = getattr(os, "O_BINARY", 0)  # Windows
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | binary, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(temporary: Path, path: Path, *, replace: Listing | None) -> None:
    """Give a folder its name; a folder that had this name gets the temporary one."""
    while True:
        try:
            os.rename(temporary, path)  # it replaces nothing but an empty folder
            return
        except OSError as error:
            if not os.path.lexists(path):
                raise
            if replace is None:
                raise _exists(path) from error
        with contextlib.suppress(FileNotFoundError):  # another process has just moved it away
            _exchange(temporary, path)
            break
    try:
        require_owned(temporary, replace)  # somebody may have put files into it meanwhile
    except UsageError:
        _exchange(temporary, path)
        require_owned(path, replace)  # raises the same, with the folder's own name in the message
        raise


def _exchange(new: Path, old: Path) -> None:
    """Exchange two names, in one step if the system can."""
    if exchanged_at_once(new, old):
        return
    aside = _temporary(old)

    def settle() -> None:
        if os.path.lexists(aside):
            os.rename(aside, new if os.path.lexists(old) else old)

    with undoing(settle):
        os.rename(old, aside)
        os.rename(new, old)
        settle()


def exchanged_at_once(new: Path, old: Path) -> bool:
    """Exchange two names in one step; return False if the system cannot."""
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if _LINUX else None
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(old))


def _temporary(path: Path) -> Path:
    return path.parent / f".{path.name}.{os.urandom(8).hex()}"


def _followed(path: Path | str) -> Path:
    """Return an absolute path without links; UsageError if a link leads to itself."""
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise UsageError(f"{path} is a link that leads to itself", "choose another name")
    return real


def _identity(path: Path) -> tuple[int, int] | None:
    """Return numbers that identify a file or folder under any name; None if there is none."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _missing(folder: Path) -> list[Path]:
    """Return the missing folders on the way to this one, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _make(folders: list[Path]) -> None:
    for folder in reversed(folders):
        folder.mkdir(exist_ok=True)
        _sync_directory(folder.parent)


def _remove(folders: list[Path]) -> None:
    """Delete folders, if they are there and empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    # Not every system can sync a folder, and syncing needs a right to read that we may not have.
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in (*_UNSUPPORTED, errno.EACCES):
            raise


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path} exists", "choose another name, or `force` to replace it")


@contextlib.contextmanager
def _disk_errors(path: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"cannot write {path}: {error.strerror or error}",
            "check the free space and permissions",
        ) from error
