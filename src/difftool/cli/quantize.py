"""difftool quantize: add int8 for CPUs to a bundle."""

import time
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from difftool.cli import options
from difftool.cli.console import report, telling

EXAMPLES = """\b
Examples:
  difftool quantize digits.bundle
  difftool quantize ddpm-mnist --out mnist.bundle --steps 100
  difftool quantize faces.bundle --calibrate data/faces --force
"""

_SELF = "self"


def quantize(
    bundle: Annotated[
        str, Argument(metavar="BUNDLE", help="Folder of a bundle, or name of a shipped model.")
    ],
    calibrate: Annotated[
        str,
        Option(
            metavar="DATA|self",
            help="What shows which values occur: the model's own run, or data as train takes "
            "them, under the noise of the program's rows.",
        ),
    ] = _SELF,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    seed: options.Seed = 0,
    out: Annotated[
        Path | None,
        Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="Write a bundle with int8 there, and leave BUNDLE as it is.",
            show_default=False,
        ),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Add int8 for CPUs to a bundle, and a report on it.

    A program, the bundle's by default, is run in fp32 to see which values occur. Layers that would
    bring too much of the error stay in fp32. Exit code 1, and nothing written, if the
    calibration does not cover the whole program. What is written is measured on the bundle's own
    program with another seed; difftool verify holds it to a few times those errors.
    """
    from difftool.compile import quantize as make
    from difftool.runtime import open_bundle

    begin = time.perf_counter()
    if out is not None:
        options.require_place(out)
    opened = open_bundle(bundle)
    program = options.choose_program(opened, options.sampler_call(sampler, steps, eta, assignments))
    data = None if calibrate == _SELF else calibrate
    with telling(quiet=json) as tell:
        made = make(
            opened, out=out, data=data, program=program, seed=seed, force=force, on_step=tell
        )
    record, errors = made.report, made.report["errors"]
    report(
        {
            "bundle": str(out or opened.path),
            "calibration": record["calibration"],
            "int8_layers": len(made.layers("int8")),
            "fp32_layers": made.layers("fp32"),
            "errors": {name: errors[name] for name in ("seed", "step_error", "psnr_db")},
            "over_own_ranges": record["over_own_ranges"],
            "bounds": record["bounds"],
            "seconds": round(time.perf_counter() - begin, 1),
        },
        as_json=json,
    )
