"""Files of others on a command line: what is said of them, and what is read from them."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from difftool.cli.console import narrate
from difftool.errors import UsageError
from difftool.files import temporary_folder

if TYPE_CHECKING:
    from difftool.diffusion.spec import ModelSpec
    from difftool.importers import Found, Imported

As = Annotated[
    str | None,
    Option(
        "--as",
        metavar="FORMAT",
        help="Read another's files as this format only; any other word lists all.",
        show_default=False,
    ),
]
Sets = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="What another's files do not tell, such as num_heads=4; repeatable.",
        show_default=False,
    ),
]


@contextlib.contextmanager
def as_checkpoint(
    path: Path, format: str | None, sets: list[str] | None, *, quiet: bool
) -> Iterator[Path]:
    """A checkpoint to export: `path` itself, or what is imported from it for as long as this lasts.

    UsageError if there is something to say of an import and `path` needs none.
    """
    from difftool.bundle import MANIFEST
    from difftool.checkpoint import is_checkpoint

    ours = is_checkpoint(path) or (path / MANIFEST).is_file()
    if not ours:
        from difftool.importers import is_foreign

        ours = not is_foreign(path)
    if ours:
        if format is not None or sets:
            raise UsageError(
                "--as and --set are of files that are imported", f"{path} is exported as it is"
            )
        yield path
        return
    from difftool.importers import write

    with temporary_folder() as folder:
        checkpoint = folder / "checkpoint"
        with reading(path, format, sets) as (found, imported):
            if not quiet:
                narrate(f"importing {path}, of {found.title}")
            write(found, imported, checkpoint)
        yield checkpoint


@contextlib.contextmanager
def reading(
    path: Path, format: str | None, sets: Iterable[str] | None
) -> "Iterator[tuple[Found, Imported]]":
    """What is imported from a path or a hub id; its files are there for as long as this lasts."""
    from difftool.importers import find
    from difftool.importers.hub import located

    said = {}
    for assignment in sets or ():
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {assignment!r} assigns nothing", "write --set name=value")
        said[name] = text
    with located(path) as (local, origin):
        found = find(local, format, origin)
        yield found, found.read(said)


def imported_record(found: "Found", imported: "Imported") -> dict[str, Any]:
    """What was, or would be, imported."""
    from difftool.diffusion.samplers import compile_program

    program = compile_program(imported.spec, imported.sampler)
    return {
        "parameters": imported.parameters,
        "step": imported.step,
        "program": program.name,
        "spec": spec_record(imported.spec),
        "network": {"kind": imported.network.kind, **imported.network.arguments},
        "source": found.record(imported),
    }


def spec_record(spec: "ModelSpec") -> dict[str, Any]:
    """A model's spec, its schedule in a few words."""
    schedule = spec.schedule
    return {
        **spec.to_dict(),
        "schedule": str(schedule),
        "levels": len(schedule),
        "alpha": [float(schedule.alpha[0]), float(schedule.alpha[-1])],
        "sigma": [float(schedule.sigma[0]), float(schedule.sigma[-1])],
    }
