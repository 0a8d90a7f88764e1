"""Fetch models from the Hugging Face hub by their id: only the few files that an import reads."""

import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, NoReturn

from difftool.errors import ArtefactError
from difftool.files import temporary_folder
from difftool.importers import layout
from difftool.importers.source import CONFIGS

# Trainers save these under the same suffixes as weights.
_STATES: Final = {"optimizer", "rng_state", "scaler", "scheduler", "training_args"}
# The folders to search for weights, in this order.
_FOLDERS: Final = ("", *layout.UNET_FOLDERS)
_NAMES: Final = {*CONFIGS, layout.PIPELINE_FILE, layout.SCHEDULER_FILE}
_ID: Final = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w-][\w./-]*))?", re.A)
TIMEOUT: Final = 10.0  # seconds to wait for an answer


@dataclass(frozen=True)
class Origin:
    """A model's id on the hub, and the commit of its files."""

    id: str
    revision: str


def hub_id(path: Path | str) -> re.Match[str] | None:
    """Match a path that does not exist here and reads as owner/name or owner/name@revision."""
    path = Path(path)
    return None if path.exists() else _ID.fullmatch(path.as_posix())


@contextlib.contextmanager
def located(path: Path | str) -> Iterator[tuple[Path, Origin | None]]:
    """Yield `path` itself if it exists, or a folder with the files of the model on the hub.

    Only the files that an import reads are fetched, into the hub's own cache. The folder has links
    to them, and is gone after the block.

    Raises:
        ArtefactError: the hub has no such model or revision, asks for a login or cannot be reached,
            or the model has no weights that could be imported, or several.
        OSError: the disk is full or must not be written to.
    """
    match = hub_id(path)
    if match is None:
        yield Path(path), None
        return
    origin, names = _look_up(match["id"], match["revision"])
    with temporary_folder() as temporary:
        folder = temporary / match["id"].replace("/", "--")  # errors show this name
        for name in names:
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            _link(link, _fetch(origin, name))
        yield folder, origin


def choose(files: Iterable[str], name: str) -> list[str]:
    """Choose the files that an import reads: one with weights, and those that describe it."""
    paths = [PurePosixPath(file) for file in files]
    weights: list[PurePosixPath] = []
    for folder in _FOLDERS:
        here = [path for path in paths if path.parent == PurePosixPath(folder)]
        # Leave out variants such as model.fp16.bin next to model.bin, and states of a trainer.
        weights = [path for path in layout.without_copies(here) if path.stem not in _STATES]
        if weights:
            break
    if not weights:
        raise ArtefactError(
            f"{name} on the hub has no file of weights ({', '.join(layout.WEIGHTS)})",
            "give a model that somebody has published in a format that difftool imports",
        )
    if len(weights) > 1:
        raise ArtefactError(
            f"{name} on the hub has several files of weights: {', '.join(map(str, weights))}",
            "download the one that you mean, and import its path",
        )
    beside = {weights[0].parent, PurePosixPath(), PurePosixPath(layout.SCHEDULER)}
    configs = [path for path in paths if path.name in _NAMES and path.parent in beside]
    return [str(path) for path in (*configs, *weights)]


def cached() -> list[tuple[Origin, dict[str, int]]]:
    """Return the importable models in the hub's own cache, each with the bytes of its files."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:
        return []
    models = []
    for repository in sorted(found.repos, key=lambda repository: repository.repo_id):
        for revision in repository.revisions if repository.repo_type == "model" else ():
            root = revision.snapshot_path
            sizes = {
                f.file_path.relative_to(root).as_posix(): f.size_on_disk for f in revision.files
            }
            with contextlib.suppress(ArtefactError):
                names = choose(sizes, repository.repo_id)
                origin = Origin(repository.repo_id, revision.commit_hash)
                models.append((origin, {name: sizes[name] for name in names}))
    return models


def _look_up(id: str, revision: str | None) -> tuple[Origin, list[str]]:
    """Return the commit of a model, and the names of the files that an import reads."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    logging.set_verbosity_error()  # `_refuse` reports what goes wrong
    try:
        info = HfApi().model_info(id, revision=revision, timeout=TIMEOUT)
    except Exception as error:  # the HTTP library, and so its errors, depend on the hub's version
        _refuse(id, revision, error)
    files = [file.rfilename for file in info.siblings or ()]
    return Origin(id, str(info.sha)), choose(files, id)


def _fetch(origin: Origin, name: str) -> Path:
    """Fetch a file into the hub's cache, and return its path there."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(origin.id, name, revision=origin.revision))
    except Exception as error:
        _refuse(origin.id, origin.revision, error)


def _refuse(id: str, revision: str | None, error: Exception) -> NoReturn:
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, OSError) and error.errno is not None:
        raise error  # it comes from this machine's disk
    if isinstance(error, GatedRepoError):
        what = f"{id} on the hub asks for a login"
        hint = "accept its terms there, then: hf auth login"
    elif isinstance(error, RepositoryNotFoundError):
        what = f"there is no {id}, neither here nor on the hub"
        hint = "check the spelling; a private one needs: hf auth login"
    elif isinstance(error, RevisionNotFoundError):
        what, hint = f"{id} on the hub has no revision {revision}", "check the spelling"
    else:
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        what = f"there is no {id} here, and fetching it from the hub fails: {reason}"
        hint = "check the spelling and the connection"
    raise ArtefactError(what, hint) from error


def _link(link: Path, target: Path) -> None:
    try:
        link.symlink_to(target.resolve())
    except OSError:  # on Windows links need a privilege
        shutil.copyfile(target, link)
