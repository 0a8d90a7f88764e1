"""The report of a verification, as plain data and as files in the bundle."""

import json
import math
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import Bundle
from difftool.bundle.amend import with_files
from difftool.plot import draw_verification, encode
from difftool.runtime.comparison import Verification
from difftool.runtime.protocols import on_device
from difftool.runtime.shipped import require_own
from difftool.verify.bisect import Culprit
from difftool.verify.frechet import Frechet
from difftool.verify.sides import Side
from difftool.verify.taught import Taught


@dataclass(frozen=True)
class Report:
    """The report of a verification.

    - `result`: the error of each row, and the samples' PSNR
    - `bisected`: True if the first node that is out of bounds was looked for
    - `culprit`: that node, if one was found
    - `frechet`: the distance of both sides' samples to data, if it was asked for
    - `taught`: the distance of a distilled model's samples from its teacher's, if it was asked for
    """

    bundle: Bundle
    candidate: Side
    reference: Side
    result: Verification
    seed: int = 0
    bisected: bool = False
    culprit: Culprit | None = None
    frechet: Frechet | None = None
    taught: Taught | None = None

    @property
    def passed(self) -> bool:
        """Tell whether the candidate is within the bounds of its precision."""
        return self.result.passed

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them; None stands for a number that is not finite."""
        result = self.result
        record: dict[str, Any] = {
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
            "precision": self.candidate.precision,
            **on_device(self.candidate.backend),
            "against": result.reference,
            "against_precision": self.reference.precision,
            **{f"against_{key}": value for key, value in on_device(self.reference.backend).items()},
            "program": result.program.name,
            "n": result.samples,
            "seed": self.seed,
        }
        if self.bisected:
            found = self.culprit
            record["bisect"] = found and {**asdict(found), "error": _finite(found.error)}
        if self.frechet is not None:
            record["frechet"] = self.frechet.to_dict()
        if self.taught is not None:
            record["teacher"] = self.taught.to_dict()
        return record

    def picture(self, format: str = "png") -> bytes:
        """Draw the rows' errors, as "png", "svg" or "pdf".

        MissingDependencyError if matplotlib is not installed.
        """
        psnr = self.result.psnr
        found = "equal samples" if math.isinf(psnr) else f"PSNR {psnr:.1f} dB"
        program = self.result.program
        title = f"{self.candidate} against {self.reference}: {found}; {program.name}"
        figure = draw_verification(
            program, self.result.errors, self.result.rms, self.result.step_tolerance, title
        )
        return encode(figure, format)

    def store(self) -> list[str]:
        """Write the report into the bundle, with its picture if matplotlib is installed.

        To the figures it adds every row: alpha and sigma of its x, and its largest and root mean
        square error. Return the names of the files. ResourceError if the bundle cannot be written
        to, UsageError if it is a shipped model.
        """
        require_own(self.bundle)
        alpha, sigma = self.result.program.targets[:-1].T
        rows = {
            "alpha": _short(alpha),
            "sigma": _short(sigma),
            "largest": _short(self.result.errors),
            "rms": _short(self.result.rms),
        }
        backend = self.candidate.backend.name.partition(":")[0]
        name = f"verify-{backend}-{self.candidate.precision}"
        text = json.dumps({**self.to_dict(), "rows": rows}, allow_nan=False) + "\n"
        files = {f"{name}.json": text.encode()}
        if find_spec("matplotlib") is not None:
            files[f"{name}.png"] = self.picture()
        with_files(self.bundle, files)
        return list(files)


def _short(values: NDArray[np.float64]) -> list[float | None]:
    return [_finite(float(f"{value:.5g}")) for value in values]


def _finite(value: float) -> float | None:
    """Replace infinity, the PSNR of equal runs, which JSON does not have."""
    return value if math.isfinite(value) else None
