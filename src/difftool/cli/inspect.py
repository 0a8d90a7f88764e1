"""difftool inspect: show what a bundle, a checkpoint, a run or an imported file holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from typer import Argument

from difftool.cli import options
from difftool.cli.console import report
from difftool.cli.foreign import imported_record, spec_record
from difftool.errors import ArtefactError

EXAMPLES = """\b
Examples:
  difftool inspect ddpm-mnist
  difftool inspect runs/digits
  difftool inspect runs/digits/checkpoints/step-000002000 --json
"""

Record = dict[str, Any]


def inspect(
    path: Annotated[
        str,
        Argument(
            metavar="PATH",
            help="Folder of a bundle, checkpoint or run, name of a shipped model, or any PATH "
            "that difftool import takes.",
        ),
    ],
    json: options.Json = False,
) -> None:
    """Show what a bundle, a run or a file to import holds.

    Files of bundles and checkpoints are checked against their digests first. Of other people's
    files it shows what difftool import would make, or which settings it would ask for.
    """
    from difftool.bundle import MANIFEST
    from difftool.runtime import shipped_models

    folder = Path(path)
    if path in shipped_models() or (folder / MANIFEST).is_file():
        record = _bundle(path)
    elif _is_ours(folder):
        record = _checkpoint(folder)
    elif _is_foreign(folder):
        record = _foreign(folder)
    elif folder.exists():
        raise ArtefactError(
            f"{path} is not a bundle, a checkpoint or a run",
            "give a folder that difftool export or difftool train made",
        )
    else:
        shipped = ", ".join(shipped_models()) or "none"
        raise ArtefactError(f"there is no {path}", f"give a folder, or a shipped model: {shipped}")
    report(record, as_json=json)


def _bundle(path: str) -> Record:
    from difftool.runtime import open_bundle

    bundle = open_bundle(path)
    manifest = bundle.manifest
    files = {name: entry.model_dump() for name, entry in manifest.files.items()}
    return {
        "kind": "bundle",
        "path": str(bundle.path),
        "format": manifest.format,
        "bytes": _total(files),
        "program": bundle.default_program().name,
        "features": [feature.value for feature in manifest.fused],
        "spec": spec_record(bundle.spec),
        "network": manifest.network.model_dump(),
        "provenance": manifest.provenance.model_dump(),
        **manifest.model_dump(mode="json", include={"distilled", "measured"}),
        "files": files,
    }


def _checkpoint(path: Path) -> Record:
    from difftool import checkpoint as ckpt
    from difftool.train import load_checkpoint

    folder = ckpt.find_checkpoint(path)
    files = ckpt.read_config(folder)["files"]
    loaded = load_checkpoint(folder, ema=ckpt.EMA in files)
    config = loaded.config
    parameters = sum(weight.numel() for weight in loaded.network.parameters())
    return {
        "kind": "checkpoint",
        "path": str(folder),
        "format": config["format"],
        "step": loaded.step,
        "checkpoints": [saved.name for saved in ckpt.list_checkpoints(path)] or [folder.name],
        "resumable": ckpt.OPTIMIZER in files,
        "bytes": _total(files),
        "program": config["program"],
        "spec": spec_record(loaded.spec),
        "network": {**config["network"], "parameters": parameters},
        "training": config["training"],
        **({key: config[key] for key in ("source", "distilled") if key in config}),
        "files": files,
    }


def _is_ours(folder: Path) -> bool:
    """Tell whether a folder may be a checkpoint or a run; a config.json alone is not enough."""
    if not (folder / "config.json").is_file() and not (folder / "checkpoints").is_dir():
        return False
    from difftool.checkpoint import is_checkpoint

    return is_checkpoint(folder)


def _is_foreign(path: Path) -> bool:
    if not path.exists() and "/" not in path.as_posix():  # neither a file nor an id on the hub
        return False
    from difftool.importers import is_foreign

    return is_foreign(path)


def _foreign(path: Path) -> Record:
    from difftool.importers import SettingsMissing, describe, find, located

    with located(path) as (local, origin):
        found = find(local, origin=origin)
        record = {"kind": "public format", "path": str(path), "format": found.name}
        try:
            return record | imported_record(describe(found, found.read()))
        except SettingsMissing as error:
            missing = {setting.name: setting.usual for setting in error.missing}
            return record | {"from": found.title, "to say": missing}


def _total(files: Mapping[str, Mapping[str, Any]]) -> int:
    return sum(entry["size"] for entry in files.values())
