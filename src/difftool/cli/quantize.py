"""difftool quantize: add int8 for CPUs, or 16 bits for GPUs, to a bundle."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Option

from difftool.cli import options
from difftool.cli.console import progress, report
from difftool.diffusion import SamplerCall
from difftool.errors import UsageError
from difftool.outputs import require_place

EXAMPLES = """\b
Examples:
  difftool quantize digits.bundle
  difftool quantize ddpm-mnist --out mnist.bundle --steps 100
  difftool quantize faces.bundle --calibrate data/faces --force
  difftool quantize faces.bundle --precision fp16
"""

_SELF = "self"


class Precision(StrEnum):
    """The precisions that a bundle can be given."""

    INT8 = "int8"
    FP16 = "fp16"
    BF16 = "bf16"


def quantize(
    bundle: options.BundleName,
    precision: Annotated[
        Precision, Option(help="Precision of the network: int8 for CPUs, the others for GPUs.")
    ] = Precision.INT8,
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
        options.out("FOLDER", "Write a new bundle to this folder, and leave BUNDLE as it is."),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Add int8 for CPUs, or 16 bits for GPUs, to a bundle.

    fp16 and bf16 only round the network's numbers. For int8 a program, by default the bundle's,
    runs in fp32 to find the range of each value. Layers with too large a share of the error stay in
    fp32. The result is measured on the bundle's own program with another seed, and reported;
    difftool verify then allows a few times those errors. If the calibration does not cover the
    whole program, nothing is written and the exit code is 1.
    """
    from difftool.bundle import step_name
    from difftool.compile import half
    from difftool.compile import quantize as make

    begin = time.perf_counter()
    if out is not None:
        require_place(out)
    if precision is not Precision.INT8:
        asked = options.sampler_call(sampler, steps, eta, assignments)
        if (calibrate, asked, seed) != (_SELF, SamplerCall(), 0):
            raise UsageError(
                f"{precision} is not calibrated", "leave --calibrate, --seed and the sampler out"
            )
        changed = half(bundle, precision=precision, out=out, force=force)
        file = step_name(precision)
        size = changed.manifest.files[file].size
        report({"bundle": str(out or changed.path), "file": file, "bytes": size}, as_json=json)
        return
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
