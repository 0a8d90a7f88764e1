"""Reading and writing files so that nothing is ever half-written: temporary name, fsync, rename."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from difftool.errors import ArtefactError, ResourceError, UsageError

JSON_LIMIT = 1 << 20  # bytes; a manifest is a few kB


def write_atomic(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`; a reader sees the old file or the new one, never a part."""
    path = Path(path)
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        _sync_directory(path.parent)


@contextlib.contextmanager
def atomic_directory(path: Path | str, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` if the block ends well, and vanishes if not.

    With `replace` an existing folder at `path` is moved aside, and deleted once the new one stands.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise UsageError(f"{path} exists", "choose another name, or allow to replace it")
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield temporary
            for file in sorted(temporary.rglob("*")):
                _sync(file)
            os.chmod(temporary, 0o777 & ~_umask())
            _sync(temporary)
            _swap(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync_directory(path.parent)


def sha256_of(path: Path | str) -> str:
    """Hex sha256 of a whole file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path | str, *, limit: int = JSON_LIMIT) -> Any:
    """Parse a JSON file of at most `limit` bytes; ArtefactError where it cannot be one."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ArtefactError(
            f"cannot read {path}: {error.strerror}", "check its name and permissions"
        ) from error
    if len(data) > limit:
        raise ArtefactError(f"{path} is larger than {limit} bytes", "is it what you meant?")
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique_keys)
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


def _swap(temporary: Path, path: Path) -> None:
    if not path.exists():
        os.rename(temporary, path)
        return
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    os.rename(path, aside / "old")
    os.rename(temporary, path)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    # Not every file system can sync a directory; the rename has happened all the same.
    with contextlib.suppress(OSError):
        _sync(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"cannot write {path}: {error.strerror or error}",
            "check the free space and permissions",
        ) from error
