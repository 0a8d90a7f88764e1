"""difftool verify: compare a bundle with its checkpoint, or two ways to run it."""

import contextlib
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from difftool.cli import options
from difftool.cli.console import report, telling
from difftool.cli.foreign import As, Sets, checkpoint_from
from difftool.errors import UsageError

EXAMPLES = """\b
Examples:
  difftool verify digits.bundle runs/digits
  difftool verify ncsn-mnist checkpoints/ncsn-mnist --steps 100 --json
  difftool verify digits.bundle --backend openvino --precision bf16 --store
  difftool verify digits.bundle --precision int8 --against openvino --bisect
  difftool verify mnist.bundle --precision int8 --data mnist/test.parquet
"""


def verify(
    bundle: Annotated[
        str, Argument(metavar="BUNDLE", help="Folder of a bundle, or name of a shipped model.")
    ],
    checkpoint: Annotated[
        Path | None,
        Argument(
            metavar="CHECKPOINT",
            help="The run or checkpoint that it was exported from, or what difftool import takes.",
            show_default=False,
        ),
    ] = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    n: options.Count = 2,
    seed: options.Seed = 0,
    backend: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="What is verified: a backend, torch, or numpy. The fastest here by default.",
            show_default=False,
        ),
    ] = None,
    precision: options.Precision = "fp32",
    against: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="What it is compared with, likewise; torch by default if there is a "
            "checkpoint, and else onnxruntime-cpu.",
            show_default=False,
        ),
    ] = None,
    against_precision: Annotated[
        str, Option(metavar="NAME", help="The precision of --against.")
    ] = "fp32",
    bisect: Annotated[
        bool,
        Option("--bisect", help="Also name the first node of the graph that is out of bounds."),
    ] = False,
    data: Annotated[
        str | None,
        Option(
            metavar="DATA",
            help="Also measure the Frechet distance of both to this, as difftool eval reads it.",
            show_default=False,
        ),
    ] = None,
    extractor: Annotated[
        str, Option(metavar="NAME|FILE.onnx", help="What sees images for --data.")
    ] = "mnist",
    draws: Annotated[
        int, Option(metavar="COUNT", help="How many samples of each are drawn for --data.")
    ] = 1000,
    picture: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Draw the rows' errors; a file ending in .png, .svg or .pdf.",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        bool, Option("--store", help="Keep the report and its picture in the bundle.")
    ] = False,
    format: As = None,
    sets: Sets = None,
    trust: options.Trust = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Compare a bundle with its checkpoint, or two ways to run it.

    Both get the same noise. Teacher-forced: every step starts from the reference's state, so that
    errors do not add up; the worst step counts. Free-running: two whole runs; their samples are
    compared, in dB of PSNR. Exit code 1 if either is out of bounds, or not finite.
    """
    from difftool.files import write_atomic
    from difftool.runtime import open_bundle
    from difftool.verify import require_storable
    from difftool.verify import verify as compare

    opened = open_bundle(bundle)
    format_ = None if picture is None else options.picture_format(picture, force=force)
    if store:
        require_storable(opened)
    program = options.choose_program(opened, options.sampler_call(sampler, steps, eta, assignments))
    with contextlib.ExitStack() as stack:
        if checkpoint is not None:
            taken = checkpoint_from(checkpoint, format, sets, quiet=json)
            checkpoint = stack.enter_context(taken)
        elif format is not None or sets:
            raise UsageError("--as and --set are of a checkpoint", "name the one to compare with")
        found = compare(
            opened,
            checkpoint,
            program=program,
            n=n,
            seed=seed,
            backend=backend,
            precision=precision,
            against=against,
            against_precision=against_precision,
            bisect=bisect,
            data=data,
            extractor=extractor,
            draws=draws,
            trusted=trust or (),
            on_step=stack.enter_context(telling(quiet=json)),
        )
    record = found.to_dict()
    if store:
        record["stored"] = found.store()
    if picture is not None and format_ is not None:
        write_atomic(picture, found.picture(format_))
        record["picture"] = str(picture)
    report(record, as_json=json)
    if not found.passed:
        raise Exit(1)
