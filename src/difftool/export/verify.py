"""A bundle against the checkpoint that it came from: row by row, and over a whole run."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import read_bundle
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, UsageError
from difftool.export.eager import Eager
from difftool.files import sha256_of
from difftool.runtime.backends import Backend, open_backend
from difftool.runtime.loop import Draws, row_noise, start_noise
from difftool.train.checkpoint import EMA, MODEL, load_checkpoint

STEP_TOLERANCE: Final = 1e-4  # of the largest |x| of the row: float32 reordering stays well below
PSNR_TOLERANCE: Final = 40.0  # dB; whole runs amplify rounding

_GUIDANCE: Final = 2.0  # the scale of a guided run


@dataclass(frozen=True)
class Verification:
    """How a backend compares with PyTorch on the same weights and noise.

    - `errors`: float64 [R], each row's largest |difference| of x over the largest |x|, where both
      start the row from PyTorch's state (teacher-forced)
    - `psnr`: of the final samples of two whole runs, in dB (free-running); inf where they are equal
    """

    backend: str
    program: Program
    samples: int
    errors: NDArray[np.float64]
    psnr: float
    step_tolerance: float = STEP_TOLERANCE
    psnr_tolerance: float = PSNR_TOLERANCE

    @property
    def worst_row(self) -> int:
        """The row of the largest error; the first that is not finite, where there is one."""
        return int(np.argmax(np.where(np.isfinite(self.errors), self.errors, np.inf)))

    @property
    def step_error(self) -> float:
        """The largest teacher-forced error."""
        return float(self.errors[self.worst_row])

    @property
    def passed(self) -> bool:
        """Whether both are within tolerance; a number that is not finite is not."""
        return self.step_error <= self.step_tolerance and self.psnr >= self.psnr_tolerance


def verify_bundle(
    bundle: Path | str,
    checkpoint: Path | str,
    *,
    program: Program | None = None,
    n: int = 2,
    seed: int = 0,
    backend: str | None = None,
    on_row: Callable[[int, int], None] | None = None,
) -> Verification:
    """Compare a bundle with its checkpoint on `n` samples of a program, its default one by default.

    ArtefactError where the bundle was exported from other weights. `on_row(done, total)` is told of
    progress.
    """
    if n < 1:
        raise UsageError(f"{n} samples", "verify at least 1")
    opened = read_bundle(bundle)
    provenance = opened.manifest.provenance
    loaded = load_checkpoint(checkpoint, ema=provenance.weights == "ema")
    weights = loaded.path / (EMA if loaded.weights == "ema" else MODEL)
    if sha256_of(weights) != provenance.weights_sha256:
        raise ArtefactError(
            f"{opened.path} was exported from other weights than {weights}",
            "give the checkpoint it came from, or export again",
        )
    teacher = Eager(loaded.network, loaded.spec, opened.manifest.fused)
    student = open_backend(opened, backend, threads=None)
    return compare(
        student, teacher, program or opened.default_program(), loaded.spec, n, seed, on_row
    )


def compare(
    student: Backend,
    teacher: Backend,
    program: Program,
    spec: ModelSpec,
    n: int = 2,
    seed: int = 0,
    on_row: Callable[[int, int], None] | None = None,
) -> Verification:
    """Run two backends through a program on the same noise; the teacher's state is the measure.

    The labels of a model with classes go through them, guided where both backends can guide.
    """
    draws = Draws(seed, np.arange(n), spec.shape)
    x = start_noise(program, draws)
    labels = _labels(spec, n, guided="guidance" in student.fused & teacher.fused)
    exact, forced, free = (
        backend.batch(program, n, labels) for backend in (teacher, student, student)
    )
    exact.start(x)
    free.start(x)
    errors = np.empty(len(program))
    for row, noise in enumerate(row_noise(program, draws)):
        forced.start(exact.x, row=row, history=exact.history)
        for batch in (exact, forced, free):
            batch.step(noise)
        difference = np.abs(forced.x.astype(np.float64) - exact.x).max()
        errors[row] = difference / np.abs(exact.x).max()
        if on_row is not None:
            on_row(row + 1, len(program))
    return Verification(student.name, program, n, errors, _psnr(free.x, exact.x, spec))


def _labels(spec: ModelSpec, n: int, *, guided: bool) -> Labels | None:
    return (
        Labels(np.arange(n) % spec.classes, _GUIDANCE if guided else 1.0) if spec.classes else None
    )


def _psnr(x: NDArray[np.float32], reference: NDArray[np.float32], spec: ModelSpec) -> float:
    """Peak signal-to-noise ratio in dB; the peak is the data range, or the samples' own range."""
    low, high = spec.data_range or (float(reference.min()), float(reference.max()))
    error = float(np.mean((x.astype(np.float64) - reference) ** 2))
    return math.inf if error == 0 else 10 * math.log10((high - low) ** 2 / error)
