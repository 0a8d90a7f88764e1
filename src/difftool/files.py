"""Reading and writing files so that nothing is ever half-written: temporary name, fsync, rename.

What a killed process leaves is a hidden name that begins with the one it would have got.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from difftool.errors import ArtefactError, ResourceError, UsageError

JSON_LIMIT = 1 << 20  # bytes; a manifest is a few kB
JSON_DEPTH = 32

_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2
_AT_FDCWD = -100
_LINUX, _WINDOWS = sys.platform == "linux", sys.platform == "win32"
# What a system says that cannot do something at all, and not just this time.
_UNSUPPORTED = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def write_atomic(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`; a reader sees the old file or the new one, never a part.

    UsageError where something stands at `path` that is no file, such as a device.
    """
    path = Path(path)
    with _disk_errors(path), _folder(path.parent):
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a file", "give the name of a file")
        temporary = _temporary(path)
        try:
            _write(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            _discard(temporary)
            raise
        _sync_directory(path.parent)


@contextlib.contextmanager
def atomic_directory(path: Path | str, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` if the block ends well, and vanishes if not.

    With `replace` it changes places with what stands at `path`, which is deleted then. Where the
    system can do that at once, as Linux can, there is a whole folder at `path` at any moment.

    Raises:
        UsageError: something stands at `path`, be it only since the block began.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise _exists(path)
    with _disk_errors(path), _folder(path.parent):
        temporary = _temporary(path)
        try:
            os.mkdir(temporary)
            yield temporary
            for file in sorted(temporary.rglob("*")):
                _sync(file)
            _sync(temporary)
            _move(temporary, path, replace=replace)
            _sync_directory(path.parent)  # before what stood there is deleted
        finally:
            _discard(temporary)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder where the system keeps such things, which is gone after the block."""
    import tempfile

    folder = _temporary(Path(tempfile.gettempdir(), "difftool"))
    try:
        os.mkdir(folder, 0o700)
        yield folder
    finally:
        _discard(folder)


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold a folder, which is made where it is not there, against other processes of ours.

    The system lets go when the process ends, however it does. There is no lock where the file
    system, or Windows, has none.

    Raises:
        UsageError: another process holds it, and this one is not to `wait`.
    """
    with _disk_errors(folder), _folder(folder):
        if _WINDOWS:
            yield
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            _lock(descriptor, folder, wait=wait)
            yield
        finally:
            os.close(descriptor)


def sha256_of(path: Path | str) -> str:
    """Hex sha256 of a whole file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path | str, *, limit: int = JSON_LIMIT) -> Any:
    """Parse a JSON file of at most `limit` bytes; ArtefactError where it cannot be one."""
    return parse_json(read_limited(path, limit), path)


def read_limited(path: Path | str, limit: int = JSON_LIMIT) -> bytes:
    """A file of at most `limit` bytes; ArtefactError where it is larger or cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ArtefactError(
            f"cannot read {path}: {error.strerror}", "check its name and permissions"
        ) from error
    if len(data) > limit:
        raise ArtefactError(f"{path} is larger than {limit} bytes", "is it what you meant?")
    return data


def parse_json(data: bytes, path: Path | str) -> Any:
    """The value of JSON; `path` is where it comes from. ArtefactError where it is no JSON.

    Nor is a key taken that stands twice, what nests more than JSON_DEPTH deep, or half a character.
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
    """ValueError where a value nests too deep, or holds half a character or an infinity."""
    level = [value]
    for _ in range(JSON_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                "".join(item).encode()
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


def _move(temporary: Path, path: Path, *, replace: bool) -> None:
    """Give a folder its name; what had that name has the temporary one afterwards."""
    while True:
        try:
            os.rename(temporary, path)  # which takes the place of nothing but an empty folder
            return
        except OSError as error:
            if not os.path.lexists(path):
                raise
            if not replace:
                raise _exists(path) from error
        with contextlib.suppress(FileNotFoundError):  # another process has just moved it away
            _exchange(temporary, path)
            return


def _exchange(new: Path, old: Path) -> None:
    """Let two names change places, in one step where the system has one."""
    if _exchanged_at_once(new, old):
        return
    aside = _temporary(old)
    try:
        os.rename(old, aside)
        os.rename(new, old)
    finally:
        if os.path.lexists(aside):
            os.rename(aside, new if os.path.lexists(old) else old)


def _exchanged_at_once(new: Path, old: Path) -> bool:
    """Whether the system let the names change places."""
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
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}")


def _discard(path: Path) -> None:
    """Delete what has a temporary name, if anything has, even where Ctrl-C comes meanwhile."""
    try:
        _delete(path)
    except KeyboardInterrupt:
        _delete(path)
        raise


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):  # the error at hand matters more
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder and those above it; those that are new go again where the block fails."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        for folder in reversed(new):
            folder.mkdir(exist_ok=True)
            _sync_directory(folder.parent)
        yield
    except BaseException:
        for folder in new:
            with contextlib.suppress(OSError):  # somebody else has put something into it
                folder.rmdir()
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    # Not every system can sync a directory, and not every folder that is written to may be read.
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in (*_UNSUPPORTED, errno.EACCES):
            raise


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path} exists", "choose another name, or allow to replace it")


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"cannot write {path}: {error.strerror or error}",
            "check the free space and permissions",
        ) from error
