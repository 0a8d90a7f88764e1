"""The bundle: a model as files to hand on. This module is the one definition of its format.

A bundle is a folder. `bundle.json` describes the model and lists every other file with its size and
sha256. A bundle is data: reading one never executes anything.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from difftool.diffusion.program import Program
from difftool.diffusion.samplers import compile_program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, UsageError
from difftool.files import read_json, sha256_of

FORMAT: Final = 1
MANIFEST: Final = "bundle.json"
STEP: Final = "step.onnx"
CONDITIONER: Final = "conditioner.onnx"
TORCHSCRIPT: Final = "step.ts"
SAMPLER: Final = "sampler.onnx"  # the whole sampler in one graph

# What a step graph can compute beyond the plain row; see `difftool.diffusion.program`.
FUSED: Final = ("known", "guidance", "norms")

# In what a step graph's network computes; all of them but the first are made from it on request.
PRECISIONS: Final = ("fp32", "fp16", "bf16", "int8", "fp8")

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
_Sequence = Field(strict=False)  # JSON has lists where a key has tuples


class FileEntry(BaseModel):
    """One file of a bundle."""

    model_config = _STRICT
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ProgramEntry(BaseModel):
    """The default program, as the call that compiles it."""

    model_config = _STRICT
    sampler: str
    arguments: dict[str, Any]


class NetworkEntry(BaseModel):
    """What was exported: the network's kind, constructor arguments and parameter count."""

    model_config = _STRICT
    kind: str
    arguments: dict[str, Any]
    parameters: int


class Provenance(BaseModel):
    """The checkpoint a bundle comes from: step, weights, digest; and what exported it."""

    model_config = _STRICT
    step: int
    weights: Literal["ema", "raw"]
    weights_sha256: str
    versions: dict[str, str]


class EngineKey(BaseModel):
    """All that an engine, a step graph compiled for GPUs, depends on.

    - `onnx_sha256`: of the file in the bundle that it was made from: the precision's own, or
      step.onnx, from which difftool `recipe` makes that precision
    - `flavour`, `version`: what compiled it
    - `gpus`: compute capabilities such as sm89; of "tensorrt", whose engines run on nothing else,
      the name of the GPU
    - `profile`: the fewest, the expected and the most samples of a run
    - `refit`: whether its weights can be replaced
    """

    model_config = _STRICT
    onnx_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    recipe: int
    flavour: Literal["tensorrt-rtx", "tensorrt"]
    version: str
    gpus: Annotated[tuple[str, ...], _Sequence]
    precision: Literal["fp32", "fp16", "bf16", "int8", "fp8"]
    profile: Annotated[tuple[int, int, int], _Sequence]
    refit: bool = False


class Bounds(BaseModel):
    """How far a precision may be from the exact samples, as whoever made its graph found it.

    - `step_error`: of one row, the largest |difference| of x over the largest |x|
    - `psnr`: in dB, of whole runs, at least
    """

    model_config = _STRICT
    step_error: float = Field(gt=0)
    psnr: float


class Manifest(BaseModel):
    """`bundle.json`. A field with a default may be added; a changed meaning raises FORMAT."""

    model_config = _STRICT
    format: int
    spec: dict[str, Any]
    program: ProgramEntry
    network: NetworkEntry
    provenance: Provenance
    files: dict[str, FileEntry]
    fused: list[Literal["known", "guidance", "norms"]] = []
    engines: dict[str, EngineKey] = {}  # of the files that are engines
    bounds: dict[str, Bounds] = {}  # of precisions


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files all match its manifest."""

    path: Path
    manifest: Manifest
    spec: ModelSpec

    def default_program(self) -> Program:
        """The program the bundle was exported with."""
        entry = self.manifest.program
        return compile_program(self.spec, entry.sampler, entry.arguments)

    def file(self, name: str) -> Path:
        """The path of a file; ArtefactError where the bundle has none of that name."""
        if name not in self.manifest.files:
            raise ArtefactError(f"{self.path} has no {name}", "export it again with what you need")
        return self.path / name

    def step(self, precision: str) -> Path:
        """The path of a precision's step graph; ArtefactError where the bundle has none."""
        name = step_name(precision)
        if name not in self.manifest.files:
            hint = f"make it: difftool quantize {self.path}"
            raise ArtefactError(
                f"{self.path} has no {name}",
                hint if precision == "int8" else "choose --precision fp32, or int8",
            )
        return self.path / name


def step_name(precision: str) -> str:
    """The file name of the step graph in a precision."""
    return STEP if precision == "fp32" else f"step.{precision}.onnx"


def read_bundle(path: Path | str) -> Bundle:
    """Read a bundle and check every file against its manifest; ArtefactError where one differs."""
    path = Path(path)
    if not path.is_dir():
        raise ArtefactError(f"{path} is not a bundle: no such folder", "make one: difftool export")
    if not (path / MANIFEST).is_file():
        raise ArtefactError(
            f"{path} is not a bundle: no {MANIFEST} in it", "make one: difftool export"
        )
    manifest = _parse(path, read_json(path / MANIFEST))
    _check_files(path, manifest.files)
    try:
        spec = ModelSpec.from_dict(manifest.spec)
        bundle = Bundle(path, manifest, spec)
        bundle.default_program()
    except UsageError as error:
        raise ArtefactError(f"{path / MANIFEST}: {error}", "export it again") from error
    return bundle


def file_entries(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file in a folder, as a manifest lists them."""
    return {
        file.name: {"size": file.stat().st_size, "sha256": sha256_of(file)}
        for file in sorted(folder.iterdir())
        if file.name != MANIFEST
    }


def _parse(path: Path, value: Any) -> Manifest:
    version = value.get("format") if isinstance(value, Mapping) else None
    if type(version) is not int or version < 1:
        raise ArtefactError(f"{path / MANIFEST} names no format", "export it again")
    if version > FORMAT:
        raise ArtefactError(
            f"{path} has bundle format {version}; this difftool reads up to {FORMAT}",
            "upgrade: pip install -U difftool",
        )
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtefactError(
            f"{path / MANIFEST}: {where}: {first['msg']}", "export it again"
        ) from error


def _check_files(path: Path, files: Mapping[str, FileEntry]) -> None:
    for name, entry in files.items():
        if name != os.path.basename(name) or name in ("", ".", ".."):
            raise ArtefactError(
                f"{path} lists {name!r}, which is not a plain file name", "do not use it"
            )
        try:
            found = os.lstat(path / name)
        except (OSError, ValueError) as error:
            raise ArtefactError(f"{path} lacks {name}", "copy the whole folder again") from error
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise ArtefactError(
                f"{path / name} is a link, not a file of its own", "copy the file itself"
            )
        if found.st_size != entry.size or sha256_of(path / name) != entry.sha256:
            raise ArtefactError(
                f"{path / name} differs from its digest", "copy the whole folder again"
            )
    if unlisted := {file.name for file in path.iterdir()} - {MANIFEST, *files}:
        raise ArtefactError(
            f"{path} holds {min(unlisted)}, which it does not list", "remove that file"
        )
