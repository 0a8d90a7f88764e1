"""Two backends on the same program and noise: row by row, and over a whole run."""

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

# If a bundle has none of its own. A rounding is 6e-8 of a float32, 5e-4 of an fp16 or tf32 and
# 4e-3 of a bf16; a row is some ten of them, which partly cancel.
BOUNDS: Final = {
    "fp32": Bounds(step_error=1e-4, psnr=40.0),
    "fp16": Bounds(step_error=5e-3, psnr=40.0),
    "tf32": Bounds(step_error=5e-3, psnr=40.0),
    "bf16": Bounds(step_error=3e-2, psnr=30.0),
    "int8": Bounds(step_error=1e-1, psnr=20.0),
}
FP32: Final = BOUNDS["fp32"]


@dataclass(frozen=True)
class Verification:
    """How a backend compares with another, the reference, on the same program and noise.

    - `candidate`, `reference`: their names
    - `errors`, `rms`: float64 [R], each row's largest and root mean square difference of x over
      the largest |x|, when both start the row from the reference's state (teacher-forced)
    - `psnr`: of the final samples of two whole runs, in dB (free-running); inf if they are equal
    - `bad_row`, `reference_bad_row`: the first row after which x or D is not finite, teacher-forced
      and the reference's own; None if there is none
    """

    candidate: str
    reference: str
    program: Program
    samples: int
    errors: NDArray[np.float64]
    rms: NDArray[np.float64]
    psnr: float
    bad_row: int | None = None
    reference_bad_row: int | None = None
    bounds: Bounds = FP32

    @property
    def step_tolerance(self) -> float:
        """What the largest teacher-forced error may be."""
        return self.bounds.step_error

    @property
    def psnr_tolerance(self) -> float:
        """What the PSNR in dB must be."""
        return self.bounds.psnr

    @property
    def worst_row(self) -> int:
        """The row of the largest error; the first that is not finite, if there is one."""
        return int(np.argmax(np.where(np.isfinite(self.errors), self.errors, np.inf)))

    @property
    def step_error(self) -> float:
        """The largest teacher-forced error."""
        return float(self.errors[self.worst_row])

    @property
    def passed(self) -> bool:
        """Whether both are within bounds; a number that is not finite is not."""
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
    """Run two backends through a program on the same noise; the reference's state is the measure.

    The labels of a model with classes go through them, guided if both backends can guide.
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
        with np.errstate(invalid="ignore", over="ignore"):  # that is what is looked for
            difference = forced.x.astype(np.float64) - exact.x
            scale = np.abs(exact.x).max()
            errors[row] = np.abs(difference).max() / scale
            rms[row] = np.sqrt(np.mean(difference**2)) / scale
        if exact not in bad:  # from there on both start from what is not finite
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
        _psnr(free.x, exact.x, spec),
        bad.get(forced),
        bad.get(exact),
        bounds,
    )


def verified_labels(spec: ModelSpec, n: int, *backends: Backend) -> Labels | None:
    """The labels that n samples are verified with, guided if all backends can guide."""
    if not spec.classes:
        return None
    guided = all(Feature.GUIDANCE in backend.features for backend in backends)
    return Labels(np.arange(n) % spec.classes, _GUIDANCE if guided else 1.0)


def _psnr(x: NDArray[np.float32], reference: NDArray[np.float32], spec: ModelSpec) -> float:
    """Peak signal-to-noise ratio in dB; the peak is the data range, or the samples' own range."""
    if not (np.isfinite(x).all() and np.isfinite(reference).all()):
        return math.nan
    low, high = spec.data_range or (float(reference.min()), float(reference.max()))
    error = float(np.mean((x.astype(np.float64) - reference) ** 2))
    return math.inf if error == 0 else 10 * math.log10((high - low) ** 2 / error)
