"""The manifest of a folder of samples: what was asked for, and which shards are there.

This module is the one definition of `manifest.json`. It is written anew after each shard, so it
holds no digests of single samples, of which there may be millions: they stand in the shards.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from difftool.errors import ArtefactError, UsageError
from difftool.files import read_json, write_json

MANIFEST: Final = "manifest.json"
MAX_SHARDS: Final = 99_999  # their names have five digits

_LIMIT: Final = 64 << 20  # bytes; a shard takes about 200
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class BulkRequest(_Entry):
    """All that the bits of a folder depend on.

    - `difftool`: the version that draws
    - `model_sha256`: the digest of the bundle's own manifest, which lists its files
    - `program`, `program_sha256`: the program's call, and the digest of its table
    - `n`, `seed`, `guidance_scale`: as in `difftool.runtime.Request`
    - `labels`: classes that the samples take in turn; None for those of the model
    - `backend`, `precision`, `threads`, `max_batch`: how each worker computes. They move last bits
    - `shard_size`: the samples of a shard; it moves no bit of a sample
    """

    difftool: str
    model_sha256: _Sha256
    program: str
    program_sha256: _Sha256
    n: int
    seed: int
    labels: list[int] | None
    guidance_scale: float
    backend: str
    precision: str
    threads: int
    max_batch: int
    shard_size: int

    def ranges(self) -> list[tuple[int, int]]:
        """Return the first sample of each shard, and how many it has."""
        size = self.shard_size
        return [(first, min(size, self.n - first)) for first in range(0, self.n, size)]

    def file(self, first: int) -> str:
        """Return the path of the shard that begins with sample `first`, from the folder.

        It is the layout of a data set on Hugging Face's hub, in which `datasets` looks for no other
        files.
        """
        number, shards = first // self.shard_size, -(-self.n // self.shard_size)
        return f"data/train-{number:05}-of-{shards:05}.parquet"


class Shard(_Entry):
    """A shard that is there: samples `first` to `first + n`, and the digest of its file."""

    file: str = Field(pattern=r"^data/train-\d{5}-of-\d{5}\.parquet$")
    first: int
    n: int
    sha256: _Sha256


class Manifest(_Entry):
    """The content of `manifest.json`.

    - `request`: what was asked for
    - `shards`: those that are there, in the order of their samples
    - `samples_sha256`: the digest of the digests of all samples, in their order; None until the
      last shard is there. It depends neither on the shards' size nor on who drew them
    """

    format: Literal[1] = 1
    request: BulkRequest
    shards: list[Shard] = []
    samples_sha256: _Sha256 | None = None


def read_manifest(folder: Path | str) -> Manifest:
    """Read the manifest of a folder of samples; ArtefactError if it is no such folder."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ArtefactError(
            f"{folder} is no folder of samples: it has no {MANIFEST}",
            "make one: difftool sample --shard-size 1000 --out FOLDER",
        )
    try:
        return Manifest.model_validate(read_json(path, limit=_LIMIT))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtefactError(f"{path}: {where}: {first['msg']}", "draw it again") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder of samples, whole or not at all."""
    write_json(folder / MANIFEST, manifest.model_dump())


def require_same(folder: Path, found: BulkRequest, asked: BulkRequest) -> None:
    """Refuse a folder of other samples than those asked for; UsageError names what differs."""
    there, wanted = found.model_dump(), asked.model_dump()
    other = [
        f"{name} {_told(there[name])}, not {_told(wanted[name])}"
        for name in there
        if there[name] != wanted[name]
    ]
    if other:
        raise UsageError(
            f"{folder} holds samples of another request: {'; '.join(other)}",
            "ask for the same to go on with it, or choose another folder",
        )


def _told(value: Any) -> str:
    return str(value)[:60]
