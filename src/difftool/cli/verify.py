"""difftool verify: compare a bundle with its checkpoint, or two ways to run it."""

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option

from difftool.cli import options
from difftool.cli.console import counted, progress, report
from difftool.cli.foreign import As, Sets, checkpoint_from
from difftool.cli.grouped import DATA
from difftool.errors import UsageError

if TYPE_CHECKING:
    from difftool.verify import Report, Side

EXAMPLES = """\b
Examples:
  difftool verify digits.bundle runs/digits
  difftool verify ncsn-mnist checkpoints/ncsn-mnist --steps 100 --json
  difftool verify digits.bundle --backend openvino --precision bf16 --store
  difftool verify digits.bundle --precision int8 --against openvino --bisect
  difftool verify mnist.bundle --precision int8 --data mnist/test.parquet
"""

_SIDES = "What to compare"  # groups of the help
_REPORT = "Report"


def verify(
    bundle: options.BundleName,
    checkpoint: Annotated[
        Path | None,
        Argument(
            metavar="CHECKPOINT",
            help="Run or checkpoint that the bundle was exported from, or any PATH that difftool "
            "import takes.",
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
            help="Candidate to verify: a backend, torch, or numpy. By default the fastest backend "
            "that works here.",
            rich_help_panel=_SIDES,
        ),
    ] = None,
    precision: options.Precision = "fp32",
    against: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Reference to compare with: a backend, torch, or numpy. By default torch if "
            "CHECKPOINT is given, and else onnxruntime-cpu.",
            rich_help_panel=_SIDES,
        ),
    ] = None,
    against_precision: Annotated[
        str,
        Option(
            metavar="NAME",
            help="Precision of the reference.",
            rich_help_panel=_SIDES,
        ),
    ] = "fp32",
    device: options.Device = 0,
    bisect: Annotated[
        bool,
        Option(
            "--bisect",
            help="Also find the first node of the graph whose output is out of bounds.",
            rich_help_panel=_REPORT,
        ),
    ] = False,
    data: Annotated[
        str | None,
        Option(
            metavar="DATA",
            help="Also measure the Frechet distance of both sides' samples to this data, which is "
            "read as difftool eval reads it.",
            rich_help_panel=DATA,
        ),
    ] = None,
    extractor: options.Extractor = "mnist",
    preprocess: options.Preprocess = None,
    teacher: Annotated[
        str | None,
        Option(
            metavar="BUNDLE",
            help="Also compare the samples of a distilled model with those of this bundle, which "
            "it learned from, from the same start noise.",
            rich_help_panel=_REPORT,
        ),
    ] = None,
    draws: Annotated[
        int,
        Option(
            metavar="COUNT",
            min=2,
            help="Number of samples that each side draws for --data.",
            rich_help_panel=DATA,
        ),
    ] = 1000,
    picture: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Draw the error of each row to this file, which ends in .png, .svg or .pdf.",
            rich_help_panel=_REPORT,
        ),
    ] = None,
    store: Annotated[
        bool,
        Option(
            "--store",
            help="Keep the report and its picture in the bundle.",
            rich_help_panel=_REPORT,
        ),
    ] = False,
    format: As = None,
    sets: Sets = None,
    trust: options.Trust = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Compare a bundle with its checkpoint, or two ways to run it.

    Candidate and reference get the same noise. Two figures must be within bounds. The step error:
    each step starts from the reference's state, so that errors do not add up, and the worst step
    counts. The PSNR, in dB: both run the whole program, and their samples are compared. Exit code
    1 if a figure is out of bounds or not finite.
    """
    from difftool.files import write_atomic
    from difftool.runtime import require_own
    from difftool.verify import verify as compare

    format_ = None if picture is None else options.picture_format(picture, force=force)
    opened, program = options.open_program(bundle, sampler, steps, eta, assignments)
    if store:
        require_own(opened)
    with contextlib.ExitStack() as stack:
        if checkpoint is not None:
            taken = checkpoint_from(checkpoint, format, sets, quiet=json)
            checkpoint = stack.enter_context(taken)
        elif format is not None or sets:
            raise UsageError(
                "--as and --set need CHECKPOINT", "name the checkpoint to compare with"
            )
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
            device=device,
            bisect=bisect,
            data=data,
            extractor=extractor,
            preprocess=preprocess,
            draws=draws,
            teacher=teacher,
            trusted=trust or (),
            on_step=stack.enter_context(progress(quiet=json)),
        )
    record = found.to_dict()
    if store:
        record["stored"] = found.store()
    if picture is not None and format_ is not None:
        write_atomic(picture, found.picture(format_))
        record["picture"] = str(picture)
    extras = bisect or data is not None or teacher is not None
    report(record, as_json=json, sentence="" if extras or not found.passed else _agreement(found))
    if not found.passed:
        raise Exit(1)


def _placed(side: "Side") -> str:
    """Return a side's name, and its GPU if it runs on one."""
    from difftool.runtime import on_device

    device = on_device(side.backend).get("device")
    return f"{side} on {device}" if device else str(side)


def _agreement(found: "Report") -> str:
    """Return in a sentence that the candidate is within its bounds."""
    result = found.result
    program = f"{counted(len(result.program), 'step')} of {result.program.call.name}"
    equal = math.isinf(result.psnr)
    psnr = f"PSNR {result.psnr:.1f} dB, at least {result.psnr_tolerance:g} is asked for"
    return (
        f"{_placed(found.candidate)} agrees with {_placed(found.reference)} in {program}: "
        f"largest error of a step {result.step_error:.1e}, at most {result.step_tolerance:.0e} is "
        f"allowed; {'the samples are equal' if equal else psnr}"
    )
