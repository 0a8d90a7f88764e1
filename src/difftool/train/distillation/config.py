"""The configuration of a distillation: TOML, presets and flags write it as they do a training's."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from difftool.errors import UsageError
from difftool.train.config import DataConfig, check_split, read_toml_as
from difftool.train.distillation.methods import Name
from difftool.train.sections import EmaConfig, Fraction, OptimizerConfig, RunConfig, Section

Steps = Annotated[int, Field(ge=1, le=1024)]
Scale = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


class StudentConfig(Section):
    """The student, and how it learns."""

    method: Name = "consistency"
    """"consistency" (consistency distillation), "consistency_tuning" (Easy Consistency Tuning,
    which follows the data and not the teacher) or "progressive"."""

    steps: Steps = 4
    """The network evaluations of its default program. A student of progressive is for this number
    alone, one of the others for any small one."""

    stages: Annotated[int, Field(ge=1, le=64)] | None = None
    """The parts of the run, of equal length; by default as many as the method's paper has."""

    guidance_scale: Scale = 1.0
    """The teacher's guidance, which the student does in one evaluation; 1 is none."""

    label_dropout: Fraction = 0.0
    """How often the student sees the null label, if its teacher knows one."""

    parameterization: str | None = None
    """What the student predicts; by default what its teacher does."""


class DistillConfig(Section):
    """Everything that determines a distillation.

    Network and noise schedule are the teacher's, and data must be of the kind that it was trained
    on.
    """

    teacher: Annotated[str, Field(min_length=1)]
    """The model to learn from: a run or a checkpoint, imported ones too."""

    student: StudentConfig = StudentConfig()
    data: DataConfig
    optimizer: OptimizerConfig = OptimizerConfig(lr=2e-4, warmup=100, decay="linear", clip=1.0)
    ema: EmaConfig = EmaConfig(decay=0.999)
    run: RunConfig

    def check(self) -> None:
        """Raise UsageError if a batch does not split, or the method cannot be guided."""
        self.optimizer.require_decay()
        check_split(self.run, self.optimizer)
        if self.student.guidance_scale != 1 and self.student.method == "consistency_tuning":
            raise UsageError(
                "student.guidance_scale with the method consistency_tuning",
                "it follows the data, not the teacher; choose consistency or progressive",
            )


def read_distill_toml(path: Path | str) -> DistillConfig:
    """Read a configuration of a distillation from a TOML file of at most 1 MiB."""
    return read_toml_as(DistillConfig, path)
