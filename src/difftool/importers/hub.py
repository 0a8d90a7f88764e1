"""Models by their id on the Hugging Face hub: the few files that an import reads, fetched."""

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

# What trainers save beside the weights, under the same suffixes.
_STATES: Final = {"optimizer", "rng_state", "scaler", "scheduler", "training_args"}
# Where weights are looked for, in this order.
_FOLDERS: Final = ("", *layout.UNET_FOLDERS)
_NAMES: Final = {*CONFIGS, layout.PIPELINE_FILE, layout.SCHEDULER_FILE}
_ID: Final = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w-][\w./-]*))?", re.A)
_TIMEOUT: Final = 10.0  # seconds to wait for an answer


@dataclass(frozen=True)
class Origin:
    """A model's id on the hub, and the commit that its files are of."""

    id: str
    revision: str


def is_hub_id(path: Path | str) -> bool:
    """Whether something that is no path here reads as owner/name or owner/name@revision."""
    path = Path(path)
    return not path.exists() and _ID.fullmatch(path.as_posix()) is not None


@contextlib.contextmanager
def located(path: Path | str) -> Iterator[tuple[Path, Origin | None]]:
    """A path to read from, for as long as this lasts: `path` itself, or what a hub id stands for.

    What exists here goes before the hub. Of a model there, only the files that an import reads are
    fetched, into the hub's own cache, and a folder of these alone is yielded.

    Raises:
        ArtefactError: the hub has no such model or revision, asks for a login, cannot be reached,
            or the model has no weights that could be imported, or several.
        OSError: the disk is full or must not be written to.
    """
    match = None if Path(path).exists() else _ID.fullmatch(Path(path).as_posix())
    if match is None:
        yield Path(path), None
        return
    origin, names = _look_up(match["id"], match["revision"])
    with temporary_folder() as temporary:
        folder = temporary / match["id"].replace("/", "--")
        for name in names:
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            _link(link, _fetch(origin, name))
        yield folder, origin


def choose(files: Iterable[str], name: str) -> list[str]:
    """Those of a model's files that an import reads: one of weights, and what describes it."""
    paths = [PurePosixPath(file) for file in files]
    weights: list[PurePosixPath] = []
    for folder in _FOLDERS:
        weights = _weights([path for path in paths if path.parent == PurePosixPath(folder)])
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
    """The models in the hub's own cache that could be imported: each with its files' bytes."""
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


def _weights(paths: list[PurePosixPath]) -> list[PurePosixPath]:
    """The files of weights in one folder, without variants such as model.fp16.bin beside model."""
    return [path for path in layout.without_copies(paths) if path.stem not in _STATES]


def _look_up(id: str, revision: str | None) -> tuple[Origin, list[str]]:
    """The commit of a model, and its files that an import reads."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    logging.set_verbosity_error()  # what goes wrong is reported here
    try:
        info = HfApi().model_info(id, revision=revision, timeout=_TIMEOUT)
    except Exception as error:  # of several HTTP libraries, by the hub's version
        _refuse(id, revision, error)
    files = [file.rfilename for file in info.siblings or ()]
    return Origin(id, str(info.sha)), choose(files, id)


def _fetch(origin: Origin, name: str) -> Path:
    """A file in the hub's cache, whole."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(origin.id, name, revision=origin.revision))
    except Exception as error:  # likewise
        _refuse(origin.id, origin.revision, error)


def _refuse(id: str, revision: str | None, error: Exception) -> NoReturn:
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, OSError) and error.errno is not None:
        raise error  # of this machine's disk
    if isinstance(error, GatedRepoError):
        what = f"{id} on the hub asks for a login"
        hint = "accept its terms there, then: hf auth login"
    elif isinstance(error, RepositoryNotFoundError):
        what = f"there is no {id}, neither here nor on the hub"
        hint = "is it spelled right? A private one needs: hf auth login"
    elif isinstance(error, RevisionNotFoundError):
        what, hint = f"{id} on the hub has no revision {revision}", "is it spelled right?"
    else:
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        what = f"there is no {id} here, and fetching it from the hub fails: {reason}"
        hint = "is it spelled right, and is there a connection?"
    raise ArtefactError(what, hint) from error


def _link(link: Path, target: Path) -> None:
    try:
        link.symlink_to(target.resolve())
    except OSError:  # Windows asks for a privilege
        shutil.copyfile(target, link)
