"""difftool cache: list, explain and delete the engines in the cache."""

from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, Typer

from difftool.cli import options, trt
from difftool.cli.console import report
from difftool.cli.grouped import Command
from difftool.errors import UsageError

if TYPE_CHECKING:
    from difftool.runtime import Record

EXAMPLES = """\b
Examples:
  difftool cache ls
  difftool cache why ddpm-mnist --gpu sm89 --precision fp16
  difftool cache rm 0a1b2c
"""

cache = Typer(help="List, explain and delete the engines in the cache.")


@cache.command(cls=Command)
def ls(json: options.Json = False) -> None:
    """List the engines in the cache."""
    from difftool.runtime import EngineCache

    kept = EngineCache()
    records = kept.records()
    report(
        {
            "folder": str(kept.folder),
            "bytes": sum(record.size for record in records),
            "engines": {record.name: _listed(record) for record in records},
        },
        as_json=json,
    )


@cache.command(cls=Command)
def why(
    model: options.Model,
    precision: trt.Precision = trt.PRECISION,
    gpu: trt.Gpu = trt.GPU,
    profile: trt.Profile = None,
    json: options.Json = False,
) -> None:
    """Tell if the cache has the engine that compile would make, or why not.

    Shows the most similar engine, and the fields in which its key differs.
    """
    from difftool.compile import engine_key, engine_request
    from difftool.runtime import EngineCache, differences, key_digest, open_bundle

    sizes = trt.profile_from(profile)
    key = engine_key(open_bundle(model), engine_request(gpu.split(","), precision, sizes))
    kept = EngineCache()
    hit = kept.find(key) is not None
    nearest = min(
        kept.records(), key=lambda record: len(differences(record.key, key)), default=None
    )
    differs = differences(nearest.key, key) if nearest else {}
    report(
        {
            "wanted": key_digest(key)[:12],
            "hit": hit,
            "reason": _reason(hit, nearest is None, bool(differs)),
            "nearest": nearest.name if nearest else None,
            "differs": {
                field: {"kept": there, "wanted": asked} for field, (there, asked) in differs.items()
            },
        },
        as_json=json,
    )


@cache.command(cls=Command)
def rm(
    names: Annotated[
        list[str] | None,
        Argument(metavar="NAME...", help="Engines, by the first digits of the names in ls."),
    ] = None,
    everything: Annotated[
        bool,
        Option(
            "--all",
            help="Delete everything: engines, TensorRT's timings, and the list of your own "
            "TorchScript files and packages.",
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Delete engines from the cache."""
    from difftool.runtime import EngineCache

    if bool(names) == everything:
        raise UsageError("rm needs either names or --all", "name engines, or use --all")
    kept = EngineCache()
    if everything:
        report({"bytes": kept.clear()}, as_json=json)
        return
    chosen = [_named(name, kept.records()) for name in names or ()]
    for record in chosen:
        kept.remove(record)
    report({"bytes": sum(record.size for record in chosen)}, as_json=json)


def _listed(record: "Record") -> dict[str, Any]:
    key = record.key
    return {
        "model": record.model,
        "precision": key.precision,
        "gpus": key.gpus,
        "profile": key.profile,
        "batches": key.batches,
        "by": f"{key.flavour} {key.version}",
        "bytes": record.size,
        "created": record.created,
    }


def _reason(hit: bool, empty: bool, differs: bool) -> str:
    if hit:
        return "the engine is there"
    if empty:
        return "the cache is empty"
    return "no engine has this key" if differs else "the engine is damaged; it will be built again"


def _named(name: str, records: "list[Record]") -> "Record":
    found = [record for record in records if record.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    count = f"{len(found)} engines" if found else "no engine"
    known = ", ".join(record.name for record in found or records) or "none"
    raise UsageError(
        f"{count} in the cache begin{'' if found else 's'} with {name!r}", f"the cache has: {known}"
    )
