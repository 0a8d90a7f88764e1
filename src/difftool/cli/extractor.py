"""difftool extractor: train a network by whose features difftool eval compares images."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Option

from difftool.cli import options, runs
from difftool.cli.console import narrate, progress, report
from difftool.outputs import require_free

EXAMPLES = """\b
Examples:
  difftool extractor --data photos/ --out photos.onnx
  difftool extractor --data cifar/train.parquet --labels label --out cifar.onnx
  difftool eval cifar.bundle --against cifar/test.parquet --extractor cifar.onnx
"""

_STEPS = 2000  # as in difftool.train.extractor, which --help must not import


class Mode(StrEnum):
    """What images are converted to, in Pillow's words."""

    GREY = "L"
    COLOUR = "RGB"


def extractor(
    data: Annotated[
        str,
        Option(
            metavar="SOURCE",
            help="Labelled images: a folder with one of images for each class, a parquet file, a "
            "hub name, or digits.",
        ),
    ],
    out: Annotated[Path, options.out("FILE.onnx", "Extractor to write.")],
    labels: Annotated[
        str, Option(metavar="COLUMN", help="Column of the labels; label for folders and digits.")
    ] = "label",
    column: Annotated[
        str | None, Option(metavar="COLUMN", help="Column of the images, if there are several.")
    ] = None,
    split: Annotated[str, Option(metavar="NAME", help="Split of a data set on the hub.")] = "train",
    size: Annotated[
        int | None,
        Option(metavar="PIXELS", min=2, help="Crop and scale the images to SIZE x SIZE pixels."),
    ] = None,
    mode: Annotated[
        Mode | None, Option(metavar="L|RGB", help="Convert the images to grey (L) or colour (RGB).")
    ] = None,
    steps: runs.Steps = _STEPS,
    seed: Annotated[
        int,
        Option(metavar="SEED", help="Seed of initial weights, order and held-out images."),
    ] = 0,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Train an extractor, for difftool eval, on labelled images.

    A small convolutional classifier for images of any size, grey or colour. A tenth of the images
    is held out, and the report says how many of these it names right. The same seed gives the same
    file on the same machine.
    """
    from difftool.data import load
    from difftool.export import export_extractor
    from difftool.files import file_sha256
    from difftool.train import train_extractor

    require_free(out, force=force)
    items = load(data, split=split, column=column, labels=labels, size=size, mode=mode)
    total = _STEPS if steps is None else steps
    with progress(quiet=json) as tell:

        def on_step(done: int) -> None:
            if done == 1 and not json:  # before it, the data may still be refused
                count = len(items.values)
                narrate(f"training an extractor of {items.classes} classes on {count} images")
            tell(done, total)

        trained = train_extractor(items, steps=total, seed=seed, on_step=on_step)
    facts = {
        "classes": trained.classes,
        "accuracy": trained.accuracy,
        "held_out": trained.held_out,
        "trained_on": trained.trained_on,
        "data_sha256": trained.data_sha256,
        "steps": trained.steps,
        "seed": trained.seed,
    }
    export_extractor(trained.network, trained.shape, out, training=facts)
    shape = list(trained.shape)
    found = {"extractor": str(out), "extractor_sha256": file_sha256(out), "shape": shape}
    report({**found, **facts}, as_json=json)
