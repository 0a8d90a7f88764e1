"""Checkpoints: folders of safetensors and JSON that appear whole or not at all.

A run folder holds `checkpoints/step-000001000/` and so on. A checkpoint holds

    config.json            format, step, model spec, network, training configuration, file digests
    model.safetensors      the network's weights
    ema.safetensors        their moving average
    optimizer.safetensors  Adam's moments, by parameter; a distillation's teacher, if that changes
    optimizer.json         the optimizer's remaining numbers

A checkpoint for export only has one of the two weights files and no optimizer. Nothing else is
stored: the position in the data is step * batch, and randomness has no state.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, UsageError, quoted
from difftool.files import (
    atomic_directory,
    file_sha256,
    final_name,
    read_json,
    write_atomic,
    write_json,
)
from difftool.log import logger
from difftool.owned import Listing, remove_owned

FORMAT: Final = 1
CONFIG = "config.json"
MODEL, EMA, OPTIMIZER = "model.safetensors", "ema.safetensors", "optimizer.safetensors"
OPTIMIZER_JSON = "optimizer.json"
FILES: Final = (CONFIG, MODEL, EMA, OPTIMIZER, OPTIMIZER_JSON)
KEYS: Final = {"format", "step", "spec", "network", "program", "training", "files"}
_STEP: Final = re.compile(r"step-\d{9,}")
_LISTED = 3  # tensors of each kind that an error names

log = logger(__name__)


def is_checkpoint(path: Path | str) -> bool:
    """Tell if a folder is a run or a checkpoint of ours, even a damaged or too new one."""
    path = Path(path)
    if (path / "checkpoints").is_dir():
        return True
    if not (path / CONFIG).is_file():
        return False
    config = read_json(path / CONFIG)
    return isinstance(config, dict) and {"format", "spec"} <= config.keys()


def listed_files(folder: Path) -> set[str]:
    """Return the files that a checkpoint lists; UsageError if a folder is not a checkpoint."""
    if (folder / "checkpoints").exists():
        raise UsageError(f"{folder} is a run, which is not replaced", "choose another name")
    try:
        config = read_json(folder / CONFIG)
        if not config.keys() >= KEYS:
            raise TypeError("keys are missing")
        return {CONFIG, *config["files"]} & {*FILES}
    except (ArtefactError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{folder} is not a checkpoint, so it is not replaced", "choose another name"
        ) from error


def all_files(folder: Path) -> set[str]:
    """Return the files of a checkpoint that may be damaged or half-written, temporary ones too."""
    return {
        path.name
        for path in folder.iterdir()
        if path.name in FILES or final_name(path.name) in FILES
    }


def find_checkpoint(path: Path | str) -> Path:
    """Return `path` itself if it is a checkpoint, or the newest whole checkpoint of a run."""
    path = Path(path)
    failure = ArtefactError(
        f"{path} is not a checkpoint",
        "give a run folder or one of its checkpoints; those of others: difftool import",
    )
    if not os.path.isdir(path):  # Path.is_dir fails for a name that no folder can have
        raise failure
    if (path / CONFIG).is_file():
        return path
    # From the newest back: a crash or a full disk may have damaged the last ones.
    for folder in reversed(list_checkpoints(path)):
        try:
            read_config(folder)
            return folder
        except ArtefactError as error:
            log.warning("skipping a damaged checkpoint: %s", error)
            failure = error
    raise failure


def list_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoint folders of a run, oldest first."""
    folders = (run / "checkpoints").glob("step-*")
    return sorted(path for path in folders if _STEP.fullmatch(path.name) and path.is_dir())


def read_config(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's config.json, and check every file that it lists."""
    config: Any = read_json(folder / CONFIG)
    if isinstance(config, dict) and "format" not in config:
        raise ArtefactError(
            f"{folder} is not a checkpoint of difftool",
            f"if another library wrote it: difftool import {folder}",
        )
    try:
        version = config["format"]
        if version > FORMAT:
            raise ArtefactError(
                f"{folder} has checkpoint format {version}; this difftool reads up to {FORMAT}",
                "install a newer difftool",
            )
        if missing := KEYS - config.keys():
            raise KeyError(min(missing))
        if not (version == FORMAT and isinstance(config["step"], int) and config["step"] >= 0):
            raise ValueError("format or step")
        for name, entry in dict(config["files"]).items():
            _check_file(folder, name, entry["size"], entry["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{folder / CONFIG} lacks or mistypes {error}",
            "if it was edited, undo that; else use an earlier checkpoint",
        ) from error
    return dict(config)


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    spec: ModelSpec,
    network: NetworkCall,
    sampler: SamplerCall,
    training: Mapping[str, Any] | None,
    tensors: Mapping[str, Mapping[str, Tensor]],
    optimizer: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    processes: int | None = None,
    distilled: Mapping[str, Any] | None = None,
    replace: Listing | None = None,
) -> None:
    """Write a checkpoint folder, atomically.

    - `sampler`: the call that makes the default program
    - `tensors`: the tensors of MODEL, EMA and OPTIMIZER, those that there are
    - `optimizer`: the content of optimizer.json
    - `source`: the origin of weights that were imported
    - `data`: the data of a training, {"items", "sha256"}
    - `processes`: the number of processes that trained together
    - `distilled`: the teacher of a distillation and its method, as `difftool.bundle.Distilled`
    - `replace`: lists the files of an existing folder that may be replaced; without it, or if the
      folder holds other files, an existing folder is a UsageError
    """
    with atomic_directory(folder, replace=replace) as temporary:
        for name, values in tensors.items():
            file = save({key: value.contiguous() for key, value in values.items()})
            write_atomic(temporary / name, file)
        if optimizer is not None:
            write_json(temporary / OPTIMIZER_JSON, optimizer)
        files = {
            path.name: {"size": path.stat().st_size, "sha256": file_sha256(path)}
            for path in sorted(temporary.iterdir())
        }
        config = {
            "format": FORMAT,
            "step": step,
            "spec": spec.to_dict(),
            "network": network.to_dict(),
            "program": sampler.to_dict(),
            "training": training,
            **({} if source is None else {"source": dict(source)}),
            **({} if data is None else {"data": dict(data)}),
            **({} if processes is None else {"processes": processes}),
            **({} if distilled is None else {"distilled": dict(distilled)}),
            "files": files,
        }
        write_json(temporary / CONFIG, config)


def prune(newest: Path, keep: int) -> None:
    """Keep the `keep` checkpoints up to `newest`; delete older ones and half-written ones.

    A later checkpoint stays. The run resumed before it because this machine could not read it, but
    another one may. Only a checkpoint's own files are deleted; anything else in its folder stays.
    """
    folder = newest.parent
    saved = [path for path in list_checkpoints(folder.parent) if path.name <= newest.name]
    begun = [path for path in folder.iterdir() if _STEP.fullmatch(final_name(path.name) or "")]
    for path in [*saved[:-keep], *begun]:
        # Without its config first, a half-deleted checkpoint is never taken for a whole one.
        (path / CONFIG).unlink(missing_ok=True)
        remove_owned(path, all_files(path))


def read_tensors(path: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read tensors with the names and shapes of `like`; ArtefactError names those that differ."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtefactError(
            f"cannot read {path}: {str(error)[:100]}", "copy it again, or use an earlier checkpoint"
        ) from error
    problems = {
        "missing": sorted(like.keys() - tensors.keys()),
        "surplus": sorted(tensors.keys() - like.keys()),
        "of another shape": [
            f"{name} {list(tensors[name].shape)} for {list(value.shape)}"
            for name, value in like.items()
            if name in tensors and tensors[name].shape != value.shape
        ],
    }
    found = [f"{kind}: {_listing(names)}" for kind, names in problems.items() if names]
    if found:
        raise ArtefactError(
            f"{path} does not fit the network of its {CONFIG}: {'; '.join(found)}",
            "use files of one and the same training",
        )
    return tensors


def _check_file(folder: Path, name: str, size: int, digest: str) -> None:
    path = folder / name
    if Path(name).name != name:
        raise ArtefactError(
            f"{folder / CONFIG} lists {quoted(name)}, which is not a plain file name",
            "do not use it",
        )
    if path.is_symlink() or not path.is_file():
        raise ArtefactError(
            f"{path} is listed in {CONFIG} but is not there", "copy the whole folder"
        )
    if path.stat().st_size != size or file_sha256(path) != digest:
        raise ArtefactError(
            f"{path} is damaged: it is not the file that {CONFIG} describes",
            "copy it again, or use an earlier checkpoint",
        )


def _listing(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
