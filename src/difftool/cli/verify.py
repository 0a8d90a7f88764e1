"""difftool verify: compare a bundle with the checkpoint that it came from."""

import math
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit

from difftool.cli import options
from difftool.cli.console import progress, report

EXAMPLES = """\b
Examples:
  difftool verify digits.bundle runs/digits
  difftool verify ncsn-mnist checkpoints/ncsn-mnist --steps 100 --json
"""


def verify(
    bundle: Annotated[
        str, Argument(metavar="BUNDLE", help="Folder of a bundle, or name of a shipped model.")
    ],
    checkpoint: Annotated[
        Path,
        Argument(metavar="CHECKPOINT", help="The run or checkpoint that it was exported from."),
    ],
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    n: options.Count = 2,
    seed: options.Seed = 0,
    backend: options.Backend = None,
    json: options.Json = False,
) -> None:
    """Compare a bundle with its checkpoint in PyTorch.

    Both get the same noise. Teacher-forced: every step starts from PyTorch's state, so that errors
    do not add up; the worst step counts. Free-running: two whole runs; their samples are compared,
    in dB of PSNR. Exit code 1 where either is out of tolerance.
    """
    from difftool.bundle import read_bundle
    from difftool.export.verify import verify_bundle
    from difftool.runtime.model import find_bundle

    folder = find_bundle(bundle)
    arguments = options.sampler_arguments(steps, eta, assignments)
    program = options.choose_program(read_bundle(folder), sampler, arguments)
    with progress(len(program), quiet=json) as advance:
        result = verify_bundle(
            folder,
            checkpoint,
            program=program,
            n=n,
            seed=seed,
            backend=backend,
            on_row=lambda *_: advance(),
        )
    report(
        {
            "passed": result.passed,
            "step_error": _finite(result.step_error),
            "step_tolerance": result.step_tolerance,
            "worst_row": result.worst_row,
            "psnr_db": _finite(result.psnr),
            "psnr_tolerance_db": result.psnr_tolerance,
            "equal": result.psnr == math.inf,
            "backend": result.backend,
            "program": program.name,
            "n": n,
            "seed": seed,
        },
        as_json=json,
    )
    if not result.passed:
        raise Exit(1)


def _finite(value: float) -> float | None:
    """JSON has no infinity, which PSNR reaches where two runs are equal."""
    return value if math.isfinite(value) else None
