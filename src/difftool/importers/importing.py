"""Turn someone else's files, or a model on the hub, into a checkpoint of ours."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difftool.bundle import MANIFEST
from difftool.checkpoint import is_checkpoint, listed_files
from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.files import destination, temporary_folder
from difftool.importers.format import Format, Imported
from difftool.importers.found import Found, find, is_foreign, write
from difftool.importers.hub import located


@dataclass(frozen=True)
class ImportedModel:
    """A model that was made from someone else's files, without its weights.

    - `spec`, `network`, `sampler`: the model, its network and its default program, as calls
    - `parameters`: the number of its weights
    - `step`: the step of its training
    - `source`: JSON data with the format, the files' sha256, and all that was assumed
    - `path`: the checkpoint; None if none was written
    """

    spec: ModelSpec
    network: NetworkCall
    sampler: SamplerCall
    parameters: int
    step: int
    source: Mapping[str, Any]
    path: Path | None = None


def import_checkpoint(
    source: Path | str,
    out: Path | str,
    *,
    format: str | Format | None = None,
    settings: Mapping[str, str] | None = None,
    force: bool = False,
) -> ImportedModel:
    """Make the checkpoint `out` from a model that someone else has trained.

    The content of the files tells their format, and nothing in them is run. One batch goes through
    the network before anything is written. `out` appears whole or not at all.

    Args:
        source: a file of weights, its folder, or `owner/name[@revision]` of a model on the Hugging
            Face hub.
        out: the folder to make.
        format: read the files as this format only, such as "score-sde", or one of your own.
        settings: facts that the files do not tell, such as {"num_heads": "4"}.
        force: replace `out`, which must itself be a checkpoint and hold nothing else.

    Raises:
        SettingsMissing: settings are missing; the error names all of them.
        UsageError: the format or a setting is unknown, or `out` exists and may not be replaced.
        ArtefactError: the files are of no known format, are damaged, or hold another network.

    Examples:
        >>> settings = {"image_size": "8", "num_heads": "1", "diffusion_steps": "1000",
        ...     "noise_schedule": "linear"}
        >>> made = difftool.importers.import_checkpoint("weights.pt", "mine", settings=settings)
        >>> made.source["format"], made.path.name
        ('improved-diffusion', 'mine')
    """
    replace = listed_files if force else None
    folder = destination(out, replace=replace)
    with _read(source, format, settings) as (found, imported):
        write(found, imported, folder, replace=replace)
        return describe(found, imported, path=Path(out))


def describe(found: Found, imported: Imported, *, path: Path | None = None) -> ImportedModel:
    """Return a model that was read, without its weights; `path` is the checkpoint made from it."""
    return ImportedModel(
        spec=imported.spec,
        network=imported.network,
        sampler=imported.sampler,
        parameters=imported.parameters,
        step=imported.step,
        source=found.record(imported),
        path=path,
    )


@contextlib.contextmanager
def as_checkpoint(
    path: Path | str,
    *,
    format: str | Format | None = None,
    settings: Mapping[str, str] | None = None,
    on_found: Callable[[Found], None] | None = None,
) -> Iterator[Path]:
    """Yield a checkpoint: `path` itself, or one that is imported from it and removed at the end.

    `on_found` is called when the files are read. UsageError if `format` or `settings` are given
    for a path that needs no import.
    """
    path = Path(path)
    if is_checkpoint(path) or (path / MANIFEST).is_file() or not is_foreign(path):
        if format is not None or settings:
            raise UsageError(
                "`format` and `settings` are given for a path that needs no import",
                f"leave them out; {path} is taken as it is",
            )
        yield path
        return
    with temporary_folder() as folder:
        checkpoint = folder / "checkpoint"
        with _read(path, format, settings) as (found, imported):
            if on_found is not None:
                on_found(found)
            write(found, imported, checkpoint)
        yield checkpoint


@contextlib.contextmanager
def _read(
    path: Path | str, format: str | Format | None, settings: Mapping[str, str] | None
) -> Iterator[tuple[Found, Imported]]:
    """Yield a model and its source; files that were fetched stay until the end of the block."""
    with located(path) as (local, origin):
        found = find(local, format, origin)
        yield found, found.read(settings)
