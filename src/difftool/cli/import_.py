"""difftool import: make a checkpoint from a model that someone else has trained."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from difftool.cli import options
from difftool.cli.console import report, waiting
from difftool.cli.foreign import As, Sets, imported_record
from difftool.outputs import require_place

EXAMPLES = """\b
Examples:
  difftool import ncsn/run/logs/mnist --out mnist
  difftool import ema_cifar10.ckpt --set resolution=32 --out cifar10
  difftool import owner/name --out model
  difftool import 128x128_diffusion.pt --set num_heads=4 --set diffusion_steps=1000 \\
      --set noise_schedule=linear --set use_new_attention_order=false --out imagenet128
"""


def import_(
    path: Annotated[
        Path,
        Argument(
            metavar="PATH",
            help="A file of weights, its folder, or owner/name[@revision] of a model on the "
            "Hugging Face hub.",
        ),
    ],
    out: Annotated[Path, options.out("CHECKPOINT", options.NEW_FOLDER)],
    format: As = None,
    sets: Sets = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Make a checkpoint from a model that someone else has trained.

    The format is recognized by the files' content, and no code in them is run. If they lack a
    setting, the error names it, and --set gives it. One batch is sent through the network before
    anything is written.
    """
    from difftool.importers import import_checkpoint

    require_place(out)
    settings = options.assigned(sets, "--set")
    with waiting("importing", quiet=json):
        made = import_checkpoint(path, out, format=format, settings=settings, force=force)
    report({"checkpoint": str(made.path), **imported_record(made)}, as_json=json)
