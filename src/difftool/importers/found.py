"""Find the format of someone else's files, and read the model in them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from difftool.checkpoint import EMA, MODEL, save_checkpoint
from difftool.errors import ArtefactError, UsageError, quoted
from difftool.files import file_sha256
from difftool.importers import (
    diffusers,
    improved,
    lucidrains,
    ncsn,
    ncsnv2,
    pesser,
    score_sde,
)
from difftool.importers.check import check
from difftool.importers.format import Format, Imported
from difftool.importers.hub import Origin, hub_id
from difftool.importers.layout import is_layout, unet_folder
from difftool.importers.settings import Settings, SettingsMissing
from difftool.importers.source import Source, open_source, tensor_files
from difftool.owned import Listing

FORMATS: Final[Mapping[str, Format]] = {
    "ncsn": ncsn.FORMAT,
    "ncsnv2": ncsnv2.FORMAT,
    "improved-diffusion": improved.FORMAT,
    "pesser": pesser.FORMAT,
    "lucidrains": lucidrains.FORMAT,
    "score-sde": score_sde.FORMAT,
    "diffusers": diffusers.FORMAT,
}
"""The formats that can be imported, by their names."""


@dataclass(frozen=True)
class Found:
    """A source, its format with the name of it, and its origin on the hub, if it was fetched."""

    name: str
    format: Format
    source: Source
    origin: Origin | None = None

    @property
    def title(self) -> str:
        """Return the repositories whose format it is."""
        return self.format.title

    def read(self, said: Mapping[str, str] | None = None) -> Imported:
        """Read and check the model; `said` has the settings that the user gave.

        Raises:
            SettingsMissing: the user must give more settings; the error names all of them.
            UsageError: a setting is unknown or has no meaning.
            ArtefactError: tensors are missing, left over or of another shape, the network is not
                one of ours, or its output is not finite.
        """
        settings = Settings(said or {}, self.source.beside)
        try:
            return check(self.format.read(self.source, settings))
        except UsageError as error:
            if said or isinstance(error, SettingsMissing):
                raise
            # The user gave nothing, so the fault is in the files.
            raise ArtefactError(error.message, error.hint) from error

    def record(self, imported: Imported) -> dict[str, Any]:
        """Return the model's origin and all decisions, as a checkpoint keeps them."""
        return {
            "format": self.name,
            "from": self.title,
            **({} if self.origin is None else {"hub": asdict(self.origin)}),
            "weights": imported.weights,
            "parameters": imported.parameters,
            "settings": dict(imported.chosen.values),
            "assumed": list(imported.chosen.assumed),
            "notes": list(imported.notes),
            "largest_outputs": imported.largest_outputs,
            "sha256": {file.name: file_sha256(file) for file in imported.files},
        }


def find(
    path: Path | str, format: str | Format | None = None, origin: Origin | None = None
) -> Found:
    """Find the format of a file or folder, or check that it is `format`.

    Raises:
        UsageError: there is no format of that name.
        ArtefactError: the path cannot be read safely, or is of no known format.
    """
    if format is None:
        wanted = FORMATS
    elif isinstance(format, Format):
        wanted = {format.title: format}
    elif format in FORMATS:
        wanted = {format: FORMATS[format]}
    else:
        raise UsageError(f"unknown format {quoted(format)}", f"one of: {', '.join(FORMATS)}")
    source = open_source(Path(path))
    for name, known in wanted.items():
        if known.recognizes(source):
            return Found(name, known, source, origin)
    signs = "; ".join(f"{known.title}: {known.sign}" for known in wanted.values())
    raise ArtefactError(
        f"{path} {_contents(source)}, and is of no format that difftool imports",
        f"looked for {signs}",
    )


def is_foreign(path: Path | str) -> bool:
    """Tell if a path that is not a checkpoint or bundle of ours may be someone else's model."""
    path = Path(path)
    if path.is_dir():
        return is_layout(path) or bool(tensor_files(path))
    return path.is_file() or hub_id(path) is not None


def write(found: Found, imported: Imported, out: Path, *, replace: Listing | None = None) -> None:
    """Write the checkpoint `out`, whole or not at all."""
    save_checkpoint(
        out,
        step=imported.step,
        spec=imported.spec,
        network=imported.network,
        sampler=imported.sampler,
        training=None,
        tensors={EMA if imported.weights == "ema" else MODEL: imported.tensors},
        source=found.record(imported),
        replace=replace,
    )


def _contents(source: Source) -> str:
    if source.file is None:
        files = [file.name for file in tensor_files(unet_folder(source.path))]
        return f"holds {len(files)} files of tensors ({', '.join(files) or 'none'})"
    content = source.content
    if isinstance(content, Mapping):
        names = [str(key) for key in content]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"holds {', '.join(names[:3]) or 'nothing'}{more}"
    return f"holds a {type(content).__name__}"
