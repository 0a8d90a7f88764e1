"""How far a distilled model's samples are from its teacher's, from the same start noise."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from difftool.bundle import Bundle
from difftool.diffusion.features import Feature
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import consistency, ddim
from difftool.errors import UsageError
from difftool.runtime.comparison import decibels
from difftool.runtime.model import Model
from difftool.runtime.opening import open_backend
from difftool.runtime.shipped import open_bundle

# Enough for a solver of the teacher's ODE to have converged on the levels that it has.
_EVALUATIONS: Final = 100
_STEPS: Final = (1, 2, 4)


@dataclass(frozen=True)
class Taught:
    """Samples of a student beside those of its teacher, from the same start noise.

    - `program`: the teacher's, which solves its ODE
    - `psnr_db`: by the number of the student's evaluations, the PSNR of its samples in dB; with
      more than one it adds fresh noise, and so draws other samples
    """

    program: str
    n: int
    psnr_db: dict[int, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them."""
        return asdict(self)


class Teacher:
    """The bundle of a student's teacher, checked before anything is drawn.

    Raises:
        UsageError: the bundle was not distilled, has another teacher, or was distilled with
            guidance, which this bundle of its teacher lacks.
    """

    def __init__(self, student: Bundle, teacher: Bundle | Path | str) -> None:
        origin = student.manifest.distilled
        if origin is None:
            raise UsageError(f"{student.path.name} was not distilled", "leave `teacher` out")
        self.bundle = open_bundle(teacher)
        weights = self.bundle.manifest.provenance.weights_sha256
        if weights != origin.teacher_sha256:
            raise UsageError(
                f"{student.path.name} was distilled from the weights {origin.teacher_sha256[:12]}, "
                f"and {self.bundle.path.name} has {weights[:12]}",
                "give a bundle that was exported from its teacher",
            )
        if origin.guidance_scale != 1 and Feature.GUIDANCE not in self.bundle.features:
            raise UsageError(
                f"{student.path.name} was distilled with guidance, "
                f"and {self.bundle.path.name} has none",
                f"export the teacher again: `features={Feature.GUIDANCE}`",
            )
        self._scale, spec = origin.guidance_scale, student.spec
        steps = min(_EVALUATIONS, len(spec.schedule))
        self._program = ddim(self.bundle.spec, steps=steps, spacing="trailing")
        most = len(spec.schedule)
        self._programs = [consistency(spec, steps=steps) for steps in _STEPS if steps <= most]

    def compare(self, student: Model, *, n: int, seed: int) -> Taught:
        """Draw n samples of teacher and student from the same start noise, and compare them."""
        teacher = Model(self.bundle, open_backend(self.bundle, None, threads=None))
        classes = student.spec.classes
        # By default a guided teacher and a student without guidance would not draw the same ones.
        labels = np.arange(n) % classes if classes else None
        wanted = teacher.sample(
            self._program, n=n, seed=seed, labels=labels, guidance_scale=self._scale
        )
        low, high = student.spec.data_range or (float(wanted.min()), float(wanted.max()))

        def psnr(program: Program) -> float:
            drawn = student.sample(program, n=n, seed=seed, labels=labels).astype(np.float64)
            return decibels(float((((drawn - wanted) / (high - low)) ** 2).mean()))

        found = {len(program): round(psnr(program), 2) for program in self._programs}
        return Taught(self._program.name, n, found)
