"""Bundles: models as folders to hand on. This room is the one definition of the format.

`bundle.json` describes the model and lists every other file with its size and sha256. A bundle is
data: reading one never executes anything. Every refusal is an ArtefactError with a code, which
docs/bundles.md lists.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from difftool.diffusion.calls import require_known
from difftool.diffusion.columns import Column
from difftool.diffusion.features import Feature
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import compile_program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, UsageError, quoted
from difftool.files import file_sha256, parse_json, read_limited, write_atomic
from difftool.preflight import (
    GUIDED,
    GraphLimits,
    OnnxFile,
    check_conditioner,
    check_step,
    read_graph,
)

# isort: off
from difftool.bundle.manifest import Bounds as Bounds
from difftool.bundle.manifest import Distilled as Distilled
from difftool.bundle.manifest import EngineKey as EngineKey
from difftool.bundle.manifest import FileEntry as FileEntry
from difftool.bundle.manifest import Manifest as Manifest
from difftool.bundle.manifest import NetworkEntry as NetworkEntry
from difftool.bundle.manifest import ProgramEntry as ProgramEntry
from difftool.bundle.manifest import Provenance as Provenance
from difftool.bundle.measured import QUALITIES as QUALITIES
from difftool.bundle.measured import Measured as Measured
from difftool.bundle.measured import MeasuredProgram as MeasuredProgram
# isort: on

FORMAT: Final = 1
MANIFEST: Final = "bundle.json"
STEP: Final = "step.onnx"
CONDITIONER: Final = "conditioner.onnx"
TORCHSCRIPT: Final = "step.ts"
SAMPLER: Final = "sampler.onnx"  # the whole sampler in one graph

# The number formats of a step graph's network; all but the first are made from it on request.
PRECISIONS: Final = ("fp32", "fp16", "bf16", "int8", "fp8")

_MISSING: Final = "bundle-missing"
_NO_DIGEST: Final = "0" * 64
_COPY: Final = "copy the whole folder again"
_AGAIN: Final = "export it again"


@dataclass(frozen=True)
class Limits:
    """The largest bundle: bytes of all files, size of each graph, and bytes of memory.

    `memory_bytes` bounds the values of one graph while it runs; a runtime takes up to two and a
    half times as much. The default is several times ONNX's largest weights, 2 GiB. It is enough for
    a batch of 1,000 pictures of 32 x 32 in a U-Net of 36 million parameters.
    """

    bundle_bytes: int = 8 << 30
    memory_bytes: int = 8 << 30
    graph: GraphLimits = field(default_factory=GraphLimits)


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files all match its manifest."""

    path: Path
    manifest: Manifest = field(repr=False)  # of a line for each file
    spec: ModelSpec
    limits: Limits = field(default_factory=Limits)
    _graphs: dict[str, OnnxFile] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def default_program(self) -> Program:
        """Return the program that the bundle was exported with."""
        return self._default

    def program_of(self, quality: str) -> Program:
        """Return the cheapest program that gives a quality, by what was measured of this bundle.

        Args:
            quality: "draft", "good" or "best": a distance from the data of at most 2, 1.2 or 1
                times the least one.

        Raises:
            UsageError: there is no such quality, or nothing was measured.
        """
        require_known("quality", quality, QUALITIES)
        if (measured := self.manifest.measured) is None:
            raise UsageError(
                f"no program of {self.path.name} was measured",
                f"measure some: difftool measure {self.path} --against DATA",
            )
        return compile_program(self.spec, measured.pick(quality).call)

    @cached_property
    def _default(self) -> Program:
        return compile_program(self.spec, self.manifest.program.call)

    def file(self, name: str) -> Path:
        """Return a file's path, to show or to copy; use `read` for bytes to run or to parse.

        ArtefactError if the bundle has no such file.
        """
        if name not in self.manifest.files:
            raise ArtefactError(
                f"{self.path} has no {name}", "export it again with what you need", code=_MISSING
            )
        return self.path / name

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; ArtefactError if they differ from its digest."""
        path, entry = self.file(name), self.manifest.files[name]
        data = read_limited(path, entry.size)
        _require_digest(path, _digest(data), entry.sha256)
        return data

    def graph(self, name: str) -> OnnxFile:
        """Return an ONNX graph; ArtefactError if it is refused or not there.

        It is read and judged once; whoever asks again gets the same bytes.
        """
        if name not in self._graphs:
            self._graphs[name] = self._judged(name)
        return self._graphs[name]

    def _judged(self, name: str) -> OnnxFile:
        path, data = self.file(name), self.read(name)
        whole = name == SAMPLER  # the loop is in its graph, and difftool never runs it
        defaults = () if whole or name == CONDITIONER else (GUIDED,)
        graph = read_graph(
            data, str(path), control_flow=whole, defaults=defaults, limits=self.limits.graph
        )
        if name == CONDITIONER:
            check_conditioner(graph, str(path), self.spec.classes)
        elif not whole:
            check_step(graph, str(path), self.spec.shape, known=Feature.KNOWN in self.features)
        file = OnnxFile(path, data, graph)
        if not whole:
            # A runtime computes all that depends on constants when it loads the file; check that.
            sizes = {name: _smallest(value.shape) for name, value in graph.inputs.items()}
            if "table" in sizes:
                sizes["table"] = (1, Column.HISTORY + 1)  # one slot of history
            file.sizes(sizes, self.limits.memory_bytes)
        return file

    @property
    def features(self) -> frozenset[Feature]:
        """Return the features of the step graph."""
        return frozenset(self.manifest.fused)

    def step(self, precision: str) -> OnnxFile:
        """Judge and return a precision's step graph, as `graph` does."""
        name = step_name(precision)
        if name not in self.manifest.files:
            line = f"compile {self.path} --onnx --precision {precision}"
            line = f"quantize {self.path}" if precision == "int8" else line
            hint = f"make it: difftool {line}" if precision != "fp8" else "choose `precision=fp32`"
            raise ArtefactError(f"{self.path} has no {name}", hint, code=_MISSING)
        return self.graph(name)


def step_name(precision: str) -> str:
    """Return the file name of the step graph in a precision."""
    return STEP if precision == "fp32" else f"step.{precision}.onnx"


def package_name(precision: str) -> str:
    """Return the file name of the AOTInductor package in a precision."""
    return step_name(precision).replace(".onnx", ".pt2")


def read_bundle(path: Path | str, *, limits: Limits | None = None) -> Bundle:
    """Read a bundle and check every file against its manifest; ArtefactError if one differs."""
    path, limits = Path(path), limits or Limits()
    if not (path / MANIFEST).is_file():
        what = f"no {MANIFEST} in it" if path.is_dir() else "no such folder"
        raise ArtefactError(
            f"{path} is not a bundle: {what}", "make one: difftool export", code=_MISSING
        )
    manifest = read_manifest(path)
    _check_files(path, manifest.files, limits)
    return _described(path, manifest, limits)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the bundle in a folder, but none of its other files."""
    found = path / MANIFEST
    _require_file(found)
    try:
        data = read_limited(found)
        value = parse_json(data, found)
    except ArtefactError as error:
        raise ArtefactError(error.message, error.hint, code="bundle-json") from error
    manifest = _parse(path, value)
    if manifest.digest:
        blank = data.replace(manifest.digest.encode(), _NO_DIGEST.encode())
        _require_digest(found, _digest(blank), manifest.digest)
    return manifest


def write_manifest(folder: Path, value: Mapping[str, Any]) -> None:
    """Write the manifest `value`, as JSON data, into a bundle's folder, with its digest."""
    rest = {key: item for key, item in value.items() if key != "digest"}
    text = json.dumps({**rest, "digest": _NO_DIGEST}, indent=2, allow_nan=False) + "\n"
    before, after = text.rsplit(_NO_DIGEST, 1)
    write_atomic(folder / MANIFEST, (before + _digest(text.encode()) + after).encode())


def listed_files(folder: Path) -> set[str]:
    """Return the files of a bundle, with its manifest; UsageError if the folder is no bundle."""
    if not (folder / MANIFEST).is_file():
        raise UsageError(f"{folder} is not a bundle, so it is not replaced", "choose another name")
    try:
        return {MANIFEST, *read_manifest(folder).files}
    except ArtefactError as error:
        raise UsageError(
            f"{error.message}, so the bundle's files are not known",
            "choose another name, or move it elsewhere",
        ) from error


def file_entries(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and sha256 of every file in a folder, as a manifest lists them."""
    return {
        file.name: {"size": file.stat().st_size, "sha256": file_sha256(file)}
        for file in sorted(folder.iterdir())
        if file.name != MANIFEST
    }


def _smallest(shape: tuple[int | None, ...] | None) -> tuple[int, ...]:
    """Return a shape with 1 for every free size."""
    return tuple(1 if size is None else size for size in shape or ())


def _require_digest(path: Path, found: str, listed: str) -> None:
    if found != listed:
        raise ArtefactError(f"{path} differs from its digest", _COPY, code="bundle-digest")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _parse(path: Path, value: Any) -> Manifest:
    version = value.get("format") if isinstance(value, Mapping) else None
    if type(version) is not int or version < 1:
        raise ArtefactError(f"{path / MANIFEST} names no format", _AGAIN, code="bundle-format")
    if version > FORMAT:
        raise ArtefactError(
            f"{path} has bundle format {version}; this difftool reads up to {FORMAT}",
            "upgrade difftool",
            code="bundle-format",
        )
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtefactError(
            f"{path / MANIFEST}: {where}: {first['msg']}", _AGAIN, code="bundle-manifest"
        ) from error


def _described(path: Path, manifest: Manifest, limits: Limits) -> Bundle:
    """Return the bundle; ArtefactError if the spec or the default program cannot be made."""
    try:
        bundle = Bundle(path, manifest, ModelSpec.from_dict(manifest.spec), limits)
        bundle.default_program()
    except UsageError as error:
        raise ArtefactError(
            f"{path / MANIFEST}: {error}", _AGAIN, code="bundle-manifest"
        ) from error
    return bundle


def _check_files(path: Path, files: Mapping[str, FileEntry], limits: Limits) -> None:
    if (size := sum(entry.size for entry in files.values())) > limits.bundle_bytes:
        raise ArtefactError(
            f"{path} has {size} bytes; {limits.bundle_bytes} are allowed",
            "raise the limit, if you know the bundle",
            code="bundle-limit",
        )
    for name, entry in files.items():
        if not _is_plain(name):
            raise ArtefactError(
                f"{path} lists {quoted(name)}, which is not a plain file name",
                "do not use it",
                code="bundle-path",
            )
        if _require_file(path / name) != entry.size:
            raise ArtefactError(
                f"{path / name} differs from its digest: it is of another size",
                _COPY,
                code="bundle-size",
            )
        _require_digest(path / name, file_sha256(path / name), entry.sha256)
    # A file without a digest might be taken for a part of the bundle, so none may be there.
    if unlisted := {file.name for file in path.iterdir()} - {MANIFEST, *files}:
        raise ArtefactError(
            f"{path} holds {min(unlisted)}, which it does not list",
            "remove that file",
            code="bundle-unlisted",
        )


def _require_file(path: Path) -> int:
    """Return the size of a file; ArtefactError if it is missing, or a link of any kind."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path.parent} lacks {path.name}", _COPY, code=_MISSING) from error
    if _is_link(found):
        raise ArtefactError(
            f"{path} is a link, not a file of its own", "copy the file itself", code="bundle-link"
        )
    return found.st_size


def _is_plain(name: str) -> bool:
    """Tell if a name stays in its folder on every system; Windows has "\\" between folders."""
    return name == os.path.basename(name) and name not in ("", ".", "..") and "\\" not in name


def _is_link(found: os.stat_result) -> bool:
    """Tell if a file has another place as well; a hard link has more than one name."""
    return not stat.S_ISREG(found.st_mode) or found.st_nlink > 1
