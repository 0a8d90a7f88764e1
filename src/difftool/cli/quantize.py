"""difftool quantize: add int8 for CPUs to a bundle."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from difftool.cli import options
from difftool.cli.console import progress, report

if TYPE_CHECKING:
    from difftool.bundle import Bundle
    from difftool.compile.quantization.calibration import Floats

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
    from difftool.bundle import read_bundle
    from difftool.compile.quantization.bundle import quantize_bundle, steps_of
    from difftool.compile.quantization.calibration import samples_for
    from difftool.runtime.model import find_bundle

    begin = time.perf_counter()
    if out is not None:
        options.require_place(out)
    opened = read_bundle(find_bundle(bundle))
    asked = options.sampler_call(sampler, steps, eta, assignments)
    program = options.choose_program(opened, asked)
    data = None
    if calibrate != _SELF:
        data = calibrate, _read(calibrate, opened, samples_for(program), seed)
    with progress(steps_of(opened, program), quiet=json) as advance:
        result = quantize_bundle(
            opened,
            out=out,
            data=data,
            program=program,
            seed=seed,
            force=force,
            on_step=advance,
        )
    record = result.report
    precisions = {name: layer["precision"] for name, layer in record["layers"].items()}
    errors = record["errors"]
    report(
        {
            "bundle": str(out or opened.path),
            "calibration": record["calibration"],
            "int8_layers": sum(precision == "int8" for precision in precisions.values()),
            "fp32_layers": [name for name, found in precisions.items() if found == "fp32"],
            "errors": {name: errors[name] for name in ("seed", "step_error", "psnr_db")},
            "over_own_ranges": record["over_own_ranges"],
            "bounds": record["bounds"],
            "seconds": round(time.perf_counter() - begin, 1),
        },
        as_json=json,
    )


def _read(source: str, bundle: "Bundle", n: int, seed: int) -> "Floats":
    """n clean samples of what a training can read, float32 [n, *S], as the model takes them."""
    import numpy as np

    from difftool import data

    spec = bundle.spec
    images = len(spec.shape) == 3
    items = data.load(
        source,
        size=spec.shape[1] if images and spec.shape[1] == spec.shape[2] else None,
        mode=("L" if spec.shape[0] == 1 else "RGB") if images else None,
        seed=seed,
    ).values
    chosen = data.batch_indices(seed, 0, n, np.arange(n), len(items))
    return data.prepared(items[chosen], spec.data_range)
