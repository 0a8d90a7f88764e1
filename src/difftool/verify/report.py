"""What verification found, as plain data, and as files in the bundle."""

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import Bundle
from difftool.bundle.amend import with_files
from difftool.runtime.comparison import Verification
from difftool.verify.sides import Side


def record_of(
    result: Verification, candidate: Side, reference: Side, *, seed: int = 0
) -> dict[str, Any]:
    """The figures and what they are of; None stands for a number that is not finite."""
    return {
        "passed": result.passed,
        "step_error": _finite(result.step_error),
        "step_tolerance": result.step_tolerance,
        "rms_error": _finite(float(result.rms[result.worst_row])),
        "worst_row": result.worst_row,
        "psnr_db": _finite(result.psnr),
        "psnr_tolerance_db": result.psnr_tolerance,
        "equal": result.psnr == math.inf,
        "bad_row": result.bad_row,
        "reference_bad_row": result.reference_bad_row,
        "backend": result.candidate,
        "precision": candidate.precision,
        "against": result.reference,
        "against_precision": reference.precision,
        "program": result.program.name,
        "n": result.samples,
        "seed": seed,
    }


def report_name(candidate: Side) -> str:
    """The name, without an ending, of the files that a report of this side is kept in."""
    backend = candidate.backend.name.partition(":")[0]
    return f"verify-{backend}-{candidate.precision}"


def store(
    bundle: Bundle,
    candidate: Side,
    result: Verification,
    record: dict[str, Any],
    picture: bytes | None = None,
) -> list[str]:
    """Put the report of a verification, and its picture, into the bundle; returns their names.

    Beside the record the report has every row: alpha and sigma of the x that it starts from, and
    its largest and root mean square error. ResourceError if the bundle cannot be written.
    """
    alpha, sigma = result.program.targets[:-1].T
    rows = {
        "alpha": _short(alpha),
        "sigma": _short(sigma),
        "largest": _short(result.errors),
        "rms": _short(result.rms),
    }
    name = report_name(candidate)
    text = json.dumps({**record, "rows": rows}, allow_nan=False) + "\n"
    files = {f"{name}.json": text.encode()}
    if picture is not None:
        files[f"{name}.png"] = picture
    with_files(bundle, files)
    return list(files)


def _short(values: NDArray[np.float64]) -> list[float | None]:
    return [_finite(float(f"{value:.5g}")) for value in values]


def _finite(value: float) -> float | None:
    """JSON has no infinity, which PSNR reaches when two runs are equal."""
    return value if math.isfinite(value) else None
