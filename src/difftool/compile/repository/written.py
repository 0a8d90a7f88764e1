"""Write a bundle as a model repository for Triton."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from difftool.bundle import MANIFEST, Bundle
from difftool.compile.repository.config import onnx_config, python_config
from difftool.compile.sampler_onnx.graph import PLAIN, portable_sampler
from difftool.diffusion.program import Program
from difftool.errors import ArtefactError, UsageError
from difftool.files import atomic_directory, destination, read_json, write_atomic, write_json
from difftool.outputs import require_no_bundle
from difftool.runtime.shipped import open_bundle

LISTING: Final = "difftool.json"  # beside the models' folders, where Triton reads no file
_FORMAT: Final = 1
_VERSION: Final = "1"
_CODE: Final = '''"""A bundle in Triton's Python backend; see docs/triton.md of difftool."""

from difftool.serve import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True)
class TritonRepository:
    """A model repository: its folder, its models, its files and bytes.

    `model` answers a request once, and `stream` shows previews before: both are of the Python
    backend. `sampler` is one call of `program`, for the ONNX Runtime backend.
    """

    path: Path
    model: str
    stream: str
    sampler: str
    files: int
    size: int
    program: Program
    precision: str


def triton(
    bundle: Bundle | Path | str,
    out: Path | str,
    *,
    program: Program | None = None,
    precision: str = "fp32",
    force: bool = False,
) -> TritonRepository:
    """Write a model repository for Triton: a bundle around the step scheduler, and as one graph.

    Triton's process needs difftool itself, with its extra `serve` and one of `cpu` and `gpu`.

    Args:
        bundle: a bundle, its folder, or the name of a shipped model.
        out: the folder to make; it appears complete or not at all.
        program: the program of the graph; by default the bundle's own. Requests of the other
            models choose theirs.
        precision: precision of the step graph; the bundle must have it.
        force: replace `out`, which must itself be such a repository and hold nothing else.

    Raises:
        UsageError: `out` exists, or the program needs a feature that the step graph lacks.
        ArtefactError: the bundle has no step graph in that precision.

    Examples:
        >>> made = difftool.compile.triton("digits.bundle", "models")
        >>> made.model
        'digits.bundle'
    """
    replace = _listed_files if force else None
    folder = destination(out, replace=replace)
    require_no_bundle(folder)
    opened = open_bundle(bundle)
    program = program or opened.default_program()
    name = Path(os.path.abspath(opened.path)).name
    model, stream, sampler = name, f"{name}-stream", f"{name}-onnx"
    graph = portable_sampler(opened, program, precision, inputs=PLAIN)
    parameters = {"precision": precision, "bundle_digest": opened.manifest.digest}
    with atomic_directory(folder, replace=replace) as new:
        for each in (model, stream):
            config = python_config(opened.spec, parameters, stream=each == stream)
            version = _written(new / each, config)
            write_atomic(version / "model.py", _CODE.encode())
            (version / "bundle").mkdir()
            for file in (MANIFEST, *opened.manifest.files):
                shutil.copyfile(opened.path / file, version / "bundle" / file)
        version = _written(new / sampler, onnx_config(opened.spec, opened.features))
        write_atomic(version / "model.onnx", graph)
        names = [file.relative_to(new).as_posix() for file in _files(new)]
        write_json(new / LISTING, {"format": _FORMAT, "files": sorted([*names, LISTING])})
    sizes = [file.stat().st_size for file in _files(folder)]
    return TritonRepository(
        Path(out), model, stream, sampler, len(sizes), sum(sizes), program, precision
    )


def _written(model: Path, config: str) -> Path:
    """Write a model's configuration; return the folder of its version."""
    write_atomic(model / "config.pbtxt", config.encode())
    return model / _VERSION


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def _listed_files(folder: Path) -> set[str]:
    """Return the relative paths of a repository's files; UsageError if the folder is none."""
    if not (folder / LISTING).is_file():
        raise UsageError(
            f"{folder} is no repository of difftool, so it is not replaced", "choose another name"
        )
    try:
        return {*map(str, read_json(folder / LISTING)["files"])}
    except (ArtefactError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder / LISTING} does not list the repository's files, so it is not replaced",
            "choose another name, or move it elsewhere",
        ) from error
