"""The cache of engines: a folder of the user's that keeps what difftool compiled.

Each engine is a file named by its own digest. Its record, which the same user made, is named by the
digest of its key. Two processes may build the same engine, but only one at a time writes to the
folder, so the last record names an engine that is there. Reading needs no lock: files appear whole,
and one that another process has just replaced counts as absent. TorchScript and AOTInductor
packages are kept in bundles, and here only their digests are remembered.
"""

import contextlib
import datetime
import hashlib
import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from difftool.bundle import EngineKey
from difftool.errors import ArtefactError, DifftoolError, ResourceError
from difftool.files import file_sha256, final_name, locked, read_json, write_atomic, write_json
from difftool.version import __version__

FORMAT: Final = 1
VARIABLE: Final = "DIFFTOOL_CACHE"

# The names of the files that are kept; the folder may hold others.
_OURS: Final = re.compile(
    r"[0-9a-f]{64}\.(json|engine|made|cubin|.+\.runtime)|tensorrt.*\.timing", re.DOTALL
)


class Record(BaseModel):
    """The record of an engine in the cache.

    `model` is the bundle that it was made from, `difftool` the version that had it built, and
    `created` the time, in UTC.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    format: int = FORMAT
    key: EngineKey
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int
    model: str
    seconds: float
    difftool: str
    created: str

    @property
    def name(self) -> str:
        """Return the first digits of its key's digest, which name it on the command line."""
        return key_digest(self.key)[:12]


class EngineCache:
    """The engines in a folder, by default the user's own; it is made when it is first written."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()

    def records(self) -> list[Record]:
        """Return the engines that are there, by name; other files are ignored."""
        found = []
        if self._is_ours():
            for path in sorted(self.folder.glob("*.json")):
                with contextlib.suppress(DifftoolError):
                    found.append(_read(path))
        return [record for record in found if self.path(record).is_file()]

    def find(self, key: EngineKey) -> Record | None:
        """Return the engine of exactly this key, its bytes checked; None if there is none."""
        for record in self.records():
            with contextlib.suppress(FileNotFoundError):
                if record.key == key and file_sha256(self.path(record)) == record.sha256:
                    return record
        return None

    def store(self, key: EngineKey, data: bytes, *, model: str, seconds: float) -> Record:
        """Keep an engine that has just been built."""
        self._make()
        record = Record(
            key=key,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            model=model,
            seconds=seconds,
            difftool=__version__,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        with locked(self.folder, wait=True):
            before = [old for old in self.records() if old.key == key]
            write_atomic(self.path(record), data)
            write_json(self._record_path(record), record.model_dump(mode="json"))
            for old in before:
                if old.sha256 != record.sha256:
                    self._forget_bytes(old)
        return record

    def remember(self, sha256: str) -> None:
        """Remember that this user's difftool made the code of this digest."""
        self.write(self.folder / f"{sha256}.made", b"")

    def made(self, sha256: str) -> bool:
        """Tell if a file of this digest was remembered."""
        return self._is_ours() and (self.folder / f"{sha256}.made").is_file()

    def remove(self, record: Record) -> None:
        """Delete an engine and the kernels that were kept from its runs."""
        with locked(self.folder, wait=True):
            for found in self.records():  # another process may have replaced it by now
                if (found.key, found.sha256) == (record.key, record.sha256):
                    self._record_path(found).unlink(missing_ok=True)
            self._forget_bytes(record)

    def clear(self) -> int:
        """Delete all that difftool keeps here, and damaged files; returns the bytes freed."""
        if not self._is_ours():
            return 0
        freed = 0
        with locked(self.folder, wait=True):
            for path in self.folder.iterdir():
                if _OURS.fullmatch(final_name(path.name) or path.name) and path.is_file():
                    freed += path.stat().st_size
                    path.unlink(missing_ok=True)
        return freed

    def path(self, record: Record) -> Path:
        """Return the engine's file."""
        return self.folder / f"{record.sha256}.engine"

    def timing_path(self, variant: str, version: str, gpu: str) -> Path:
        """Return where TensorRT's measurements of a GPU are kept between builds."""
        return self.folder / re.sub(r"[^\w.-]", "_", f"{variant}-{version}-{gpu}.timing")

    def runtime_path(self, sha256: str, gpu: str) -> Path:
        """Return where the kernels that TensorRT for RTX compiles of an engine are kept."""
        return self.folder / f"{sha256}.{gpu}.runtime"

    def kernel_path(self, sha256: str) -> Path:
        """Return where one of difftool's own kernels is kept, by the digest of what it is of."""
        return self.folder / f"{sha256}.cubin"

    def read(self, path: Path) -> bytes:
        """Return the bytes of a file of the cache; none if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            return path.read_bytes() if self._is_ours() else b""
        return b""

    def write(self, path: Path, data: bytes) -> None:
        """Write a file of the cache whole."""
        self._make()
        write_atomic(path, data)

    def _record_path(self, record: Record) -> Path:
        return self.folder / f"{key_digest(record.key)}.json"

    def _forget_bytes(self, record: Record) -> None:
        for path in self.folder.glob(f"{record.sha256}.*"):
            path.unlink(missing_ok=True)

    def _make(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"cannot make the cache {self.folder}: {error.strerror}",
                f"name another folder in {VARIABLE}",
            ) from error
        self._is_ours()

    def _is_ours(self) -> bool:
        """Tell if the folder is there; ResourceError if another user could put engines in it."""
        if not self.folder.is_dir():
            return False
        if os.name == "posix":
            found, others = self.folder.stat(), stat.S_IWGRP | stat.S_IWOTH
            if found.st_uid not in (0, os.geteuid()) or found.st_mode & others:
                raise ResourceError(
                    f"others can write into the cache {self.folder}, which says what code may run",
                    f"run: chmod 700 {self.folder}, or name a folder of your own in {VARIABLE}",
                )
        return True


def cache_folder() -> Path:
    """Return the folder of the user's engines: $DIFFTOOL_CACHE, or in the platform's caches."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "difftool"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/difftool"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "difftool"


def key_digest(key: EngineKey) -> str:
    """Return the sha256 of a key, which names its record."""
    text = json.dumps(key.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> Record:
    try:
        record = Record.model_validate(read_json(path))
    except ValidationError as error:
        raise ArtefactError(f"{path} records no engine", "run: difftool cache rm --all") from error
    if record.format > FORMAT or path.stem != key_digest(record.key):
        raise ArtefactError(f"{path} records another engine", "run: difftool cache rm --all")
    return record
