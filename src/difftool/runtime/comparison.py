"""Compare two backends on the same program and noise: row by row, and over a whole run."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import Bounds
from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.runtime.draws import Draws, row_noise, start_noise
from difftool.runtime.protocols import Backend, Batch

OnRow = Callable[[int, int], None]

_GUIDANCE: Final = 2.0  # the scale of a guided run

# For a bundle without bounds of its own. Rounding errs by 6e-8 in float32, 5e-4 in fp16 or tf32 and
# 4e-3 in bf16; a row rounds some ten times, and the errors partly cancel.
BOUNDS: Final = {
    "fp32": Bounds(step_error=1e-4, psnr=40.0),
    "fp16": Bounds(step_error=5e-3, psnr=40.0),
    "tf32": Bounds(step_error=5e-3, psnr=40.0),
    "bf16": Bounds(step_error=3e-2, psnr=30.0),
    "int8": Bounds(step_error=1e-1, psnr=20.0),
    "fp8": Bounds(step_error=1e-1, psnr=20.0),
}
FP32: Final = BOUNDS["fp32"]


@dataclass(frozen=True)
class Verification:
    """A candidate's errors against a reference on the same program and noise.

    - `candidate`, `reference`: their names
    - `errors`, `rms`: float64 [R], each row's largest and root mean square difference of x over
      the largest |x|, if both start the row from the reference's state (teacher-forced)
    - `psnrs`: in dB [N], of each final sample of two whole runs (free-running); inf if they are
      equal
    - `bad_row`, `reference_bad_row`: the first row after which x or D is not finite, in the
      teacher-forced candidate and in the reference; None if there is none
    """

    candidate: str
    reference: str
    program: Program
    samples: int
    errors: NDArray[np.float64]
    rms: NDArray[np.float64]
    psnrs: NDArray[np.float64]
    bad_row: int | None = None
    reference_bad_row: int | None = None
    bounds: Bounds = FP32

    @property
    def psnr(self) -> float:
        """Return the PSNR of all samples together, in dB."""
        return decibels(float(np.mean(10 ** (-self.psnrs / 10))))

    @property
    def step_tolerance(self) -> float:
        """Return the bound of the largest teacher-forced error."""
        return self.bounds.step_error

    @property
    def psnr_tolerance(self) -> float:
        """Return the least PSNR in dB."""
        return self.bounds.psnr

    @property
    def worst_row(self) -> int:
        """Return the row of the largest error; the first that is not finite, if there is one."""
        return int(np.argmax(np.where(np.isfinite(self.errors), self.errors, np.inf)))

    @property
    def step_error(self) -> float:
        """Return the largest teacher-forced error."""
        return float(self.errors[self.worst_row])

    @property
    def passed(self) -> bool:
        """Tell if both are within bounds; a number that is not finite is not."""
        return (
            self.bad_row is None
            and self.reference_bad_row is None
            and self.step_error <= self.step_tolerance
            and self.psnr >= self.psnr_tolerance
        )


def compare(
    candidate: Backend,
    reference: Backend,
    program: Program,
    spec: ModelSpec,
    n: int = 2,
    seed: int = 0,
    on_row: OnRow | None = None,
    *,
    bounds: Bounds = FP32,
) -> Verification:
    """Run two backends through a program on the same noise.

    The samples of a model with classes have each class in turn, guided if both backends can guide.
    """
    if n < 1:
        raise UsageError(f"{n} samples", "verify at least 1")
    draws = Draws(seed, np.arange(n), spec.shape)
    x = start_noise(program, draws)
    labels = verified_labels(spec, n, candidate, reference)
    exact, forced, free = (
        backend.batch(program, n, labels) for backend in (reference, candidate, candidate)
    )
    exact.start(x)
    free.start(x)
    errors, rms = np.empty((2, len(program)))
    bad: dict[Batch, int] = {}
    for row, noise in enumerate(row_noise(program, draws)):
        forced.start(exact.x, row=row, history=exact.history)
        for batch in (exact, forced, free):
            batch.step(noise)
        with np.errstate(invalid="ignore", over="ignore"):  # looked for below
            difference = forced.x.astype(np.float64) - exact.x
            scale = np.abs(exact.x).max()
            errors[row] = np.abs(difference).max() / scale
            rms[row] = np.sqrt(np.mean(difference**2)) / scale
        if exact not in bad:  # later rows start from that state
            for batch in (exact, forced):
                if not (np.isfinite(batch.x).all() and np.isfinite(batch.denoised).all()):
                    bad.setdefault(batch, row)
        if on_row is not None:
            on_row(row + 1, len(program))
    return Verification(
        candidate.name,
        reference.name,
        program,
        n,
        errors,
        rms,
        _psnrs(free.x, exact.x, spec),
        bad.get(forced),
        bad.get(exact),
        bounds,
    )


def verified_labels(spec: ModelSpec, n: int, *backends: Backend) -> Labels | None:
    """Return the labels that n samples are verified with, guided if all backends can guide."""
    if not spec.classes:
        return None
    guided = all(Feature.GUIDANCE in backend.features for backend in backends)
    return Labels(np.arange(n) % spec.classes, _GUIDANCE if guided else 1.0)


def _psnrs(
    x: NDArray[np.float32], reference: NDArray[np.float32], spec: ModelSpec
) -> NDArray[np.float64]:
    """Return each sample's PSNR in dB; the peak is the data range, or the reference's own range."""
    if not (np.isfinite(x).all() and np.isfinite(reference).all()):
        return np.full(len(x), math.nan)
    low, high = spec.data_range or (float(reference.min()), float(reference.max()))
    errors = ((x.astype(np.float64) - reference) / (high - low)) ** 2
    return np.array([decibels(float(error.mean())) for error in errors])


def decibels(error: float) -> float:
    """Return the PSNR of a mean squared error over the squared peak."""
    return math.inf if error == 0 else -10 * math.log10(error)
