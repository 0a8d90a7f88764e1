"""difftool import: make a checkpoint of a model that someone else has trained."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from difftool.cli import options
from difftool.cli.console import narrate, report, waiting
from difftool.cli.inspect import spec_record
from difftool.errors import UsageError
from difftool.files import destination, temporary_folder

if TYPE_CHECKING:
    from difftool.train.importers import Found, Imported

EXAMPLES = """\b
Examples:
  difftool import ncsn/run/logs/mnist --out mnist
  difftool import ema_cifar10.ckpt --set resolution=32 --out cifar10
  difftool import owner/name --out model
  difftool import 128x128_diffusion.pt --set num_heads=4 --set diffusion_steps=1000 \\
      --set noise_schedule=linear --set use_new_attention_order=false --out imagenet128
"""

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


def import_(
    path: Annotated[
        Path,
        Argument(
            metavar="PATH",
            help="A file of weights, the folder that it lies in, or the owner/name[@revision] of "
            "a model on the Hugging Face hub.",
        ),
    ],
    out: Annotated[
        Path, Option("--out", "-o", metavar="CHECKPOINT", help="Folder to make; it appears whole.")
    ],
    format: As = None,
    sets: Sets = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Make a checkpoint of a model that someone else has trained.

    The format is recognized by what the files hold, and nothing in them is run. What they do not
    tell is asked for, to be said with --set. One batch is sent through the network before anything
    is written.
    """
    from difftool.checkpoint import listed_files
    from difftool.train.importers import write

    options.require_place(out)
    replace = listed_files if force else None
    folder = destination(out, replace=replace)
    with waiting("importing", quiet=json), _read(path, format, sets) as (found, imported):
        write(found, imported, folder, replace=replace)
        record = {"checkpoint": str(out), **imported_record(found, imported)}
    report(record, as_json=json)


@contextlib.contextmanager
def as_checkpoint(
    path: Path, format: str | None, sets: list[str] | None, *, quiet: bool
) -> Iterator[Path]:
    """A checkpoint to export: `path` itself, or what is imported from it for as long as this lasts.

    UsageError where there is something to say of an import and `path` needs none.
    """
    from difftool.bundle import MANIFEST
    from difftool.checkpoint import is_checkpoint

    ours = is_checkpoint(path) or (path / MANIFEST).is_file()
    if not ours:
        from difftool.train.importers import is_foreign

        ours = not is_foreign(path)
    if ours:
        if format is not None or sets:
            raise UsageError(
                "--as and --set are of files that are imported", f"{path} is exported as it is"
            )
        yield path
        return
    from difftool.train.importers import write

    with temporary_folder() as folder:
        checkpoint = folder / "checkpoint"
        with _read(path, format, sets) as (found, imported):
            if not quiet:
                narrate(f"importing {path}, of {found.title}")
            write(found, imported, checkpoint)
        yield checkpoint


def imported_record(found: "Found", imported: "Imported") -> dict[str, Any]:
    """What was, or would be, imported."""
    from difftool.diffusion.samplers import compile_program

    program = compile_program(imported.spec, imported.sampler)
    arguments = imported.network["arguments"]
    return {
        "parameters": imported.parameters,
        "step": imported.step,
        "program": program.name,
        "spec": spec_record(imported.spec),
        "network": {"kind": imported.network["kind"], **arguments},
        "source": found.record(imported),
    }


@contextlib.contextmanager
def _read(
    path: Path, format: str | None, sets: Iterable[str] | None
) -> "Iterator[tuple[Found, Imported]]":
    """What is imported from a path or a hub id; its files are there for as long as this lasts."""
    from difftool.train.importers import find
    from difftool.train.importers.hub import located

    said = {}
    for assignment in sets or ():
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {assignment!r} assigns nothing", "write --set name=value")
        said[name] = text
    with located(path) as (local, origin):
        found = find(local, format, origin)
        yield found, found.read(said)
