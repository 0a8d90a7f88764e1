"""difftool quantize: add int8 for CPUs to a bundle."""

import time
from pathlib import Path
from typing import Annotated

from typer import Option

from difftool.cli import options
from difftool.cli.console import progress, report
from difftool.outputs import require_place

EXAMPLES = """\b
Examples:
  difftool quantize digits.bundle
  difftool quantize ddpm-mnist --out mnist.bundle --steps 100
  difftool quantize faces.bundle --calibrate data/faces --force
"""

_SELF = "self"


def quantize(
    bundle: options.BundleName,
    calibrate: Annotated[
        str,
        Option(
            metavar="DATA|self",
            help="Source of the values to calibrate with: self, the model's own run, or data as "
            "difftool train takes it, under the noise of the program's rows.",
        ),
    ] = _SELF,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    seed: options.Seed = 0,
    out: Annotated[
        Path | None,
        options.out(
            "FOLDER", "Write a new bundle with int8 to this folder, and leave BUNDLE as it is."
        ),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Add int8 for CPUs to a bundle, and a report on it.

    A program, by default the bundle's, runs in fp32 to find the range of each value. Layers with
    too large a share of the error stay in fp32. The result is measured on the bundle's own program
    with another seed; difftool verify then allows a few times those errors. If the calibration does
    not cover the whole program, nothing is written and the exit code is 1.
    """
    from difftool.compile import quantize as make

    begin = time.perf_counter()
    if out is not None:
        require_place(out)
    opened, program = options.open_program(bundle, sampler, steps, eta, assignments)
    data = None if calibrate == _SELF else calibrate
    with progress(quiet=json) as tell:
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
