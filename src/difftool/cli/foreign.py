"""Options and report entries for other people's model files."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from difftool.cli.console import narrate
from difftool.cli.options import assigned

if TYPE_CHECKING:
    from difftool.diffusion import ModelSpec
    from difftool.importers import Found, ImportedModel

_IMPORTED = "Files of others"

As = Annotated[
    str | None,
    Option(
        "--as",
        metavar="FORMAT",
        help="Read imported files as this format only; an unknown name prints the list.",
        rich_help_panel=_IMPORTED,
    ),
]
Sets = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="Setting that imported files do not hold, such as num_heads=4; repeatable.",
        rich_help_panel=_IMPORTED,
    ),
]


def checkpoint_from(
    path: Path, format: str | None, sets: Iterable[str] | None, *, quiet: bool
) -> AbstractContextManager[Path]:
    """Yield the checkpoint `path`, or one imported from it, which is said on stderr."""
    from difftool.importers import as_checkpoint

    def tell(found: "Found") -> None:
        if not quiet:
            narrate(f"importing {path}: {found.title}")

    return as_checkpoint(path, format=format, settings=assigned(sets, "--set"), on_found=tell)


def imported_record(model: "ImportedModel") -> dict[str, Any]:
    """Return what is reported about an imported model, or about one that could be imported."""
    from difftool.diffusion import compile_program

    return {
        "parameters": model.parameters,
        "step": model.step,
        "program": compile_program(model.spec, model.sampler).name,
        "spec": spec_record(model.spec),
        "network": {"kind": model.network.kind, **model.network.arguments},
        "source": model.source,
    }


def spec_record(spec: "ModelSpec") -> dict[str, Any]:
    """Return a model's spec, with a short description of its schedule."""
    schedule = spec.schedule
    return {
        **spec.to_dict(),
        "schedule": str(schedule),
        "levels": len(schedule),
        "alpha": [float(schedule.alpha[0]), float(schedule.alpha[-1])],
        "sigma": [float(schedule.sigma[0]), float(schedule.sigma[-1])],
    }
