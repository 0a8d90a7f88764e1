"""One distillation: its student's model, its loss at a step, and its teacher at each stage."""

import copy
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from difftool.checkpoint import EMA, MODEL
from difftool.diffusion.samplers import compile_program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.files import file_sha256
from difftool.networks.trained import Checkpoint, load_checkpoint
from difftool.train import draws
from difftool.train.data import Data
from difftool.train.distillation.config import DistillConfig
from difftool.train.distillation.losses import Denoiser, Denoisers, Level
from difftool.train.distillation.methods import METHODS
from difftool.train.losses import Levels, level_table
from difftool.train.objective import Conditioned

TEACHER: Final = "teacher"  # before the names of its tensors, in a checkpoint
Network = Callable[..., Tensor]  # F(x, cond), or F(x, cond, label=...) with classes


class Distillation:
    """The loss of a distillation, in the form of `difftool.train.objective.Objective`.

    It holds the teacher, which a method that renews it replaces by the student after each stage.
    """

    def __init__(self, config: DistillConfig, teacher: Checkpoint, device: torch.device) -> None:
        self.config, self.student, self.device = config, config.student, device
        self.method = METHODS[config.student.method]
        self.spec = student_spec(config, teacher)
        self.call, self.sampler = teacher.call, self.method.call(config.student.steps)
        self.stages = self.method.stages(
            self.spec.schedule, config.student.steps, config.student.stages
        )
        if config.run.channels_last and len(self.spec.shape) == 3:
            teacher.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._teach(teacher.network.to(device))
        file = teacher.path / (EMA if teacher.weights == "ema" else MODEL)
        self._digest, self._first_spec, self._renewed = file_sha256(file), teacher.spec, False

    def _teach(self, network: nn.Module) -> None:
        self.teacher = network
        self.evaluate = Conditioned(network, self.config.run.precision)

    def stage_at(self, step: int) -> int:
        """Return the stage of a step; all stages are equally long, give or take one step."""
        return min(step * len(self.stages) // self.config.run.steps, len(self.stages) - 1)

    def begins_stage(self, step: int) -> bool:
        """Tell if the teacher is renewed before this step."""
        return self.method.renews and step > 0 and self.stage_at(step) > self.stage_at(step - 1)

    def lr_at(self, step: int) -> float:
        """Return the learning rate, whose course begins anew if a stage has another teacher."""
        steps, count = self.config.run.steps, len(self.stages)
        if not self.method.renews:
            return self.config.optimizer.lr_at(step, steps)
        first, end = (-(-(self.stage_at(step) + k) * steps // count) for k in (0, 1))
        return self.config.optimizer.lr_at(step - first, end - first)

    def renew(self, student: nn.Module) -> None:
        """Make a copy of the student the teacher of all further steps."""
        self._teach(copy.deepcopy(student).requires_grad_(False))
        self._renewed = True

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights that a checkpoint must hold for a run to go on from it."""
        if not self.method.renews:
            return {}
        return {f"{TEACHER}.{name}": value for name, value in self.teacher.state_dict().items()}

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Go on from a checkpoint of `step` that holds `tensors`."""
        # A checkpoint between two stages is written before the next one renews its teacher.
        if self.method.renews and self.stage_at(max(step - 1, 0)) > 0:
            start = len(TEACHER) + 1
            self.teacher.load_state_dict({name[start:]: each for name, each in tensors.items()})
            self._renewed = True

    def record(self) -> dict[str, Any]:
        """Return what a student's checkpoint and bundle say of where it comes from."""
        return {
            "method": self.student.method,
            "teacher_sha256": self._digest,
            "guidance_scale": self.student.guidance_scale,
            "steps": self.student.steps,
            "levels": self.levels,
        }

    @cached_property
    def levels(self) -> list[int]:
        """Return the levels of the default program, from most to least noise."""
        visited = compile_program(self.spec, self.sampler).targets[:-1, 1]
        return [int(np.abs(self.spec.schedule.sigma - sigma).argmin()) for sigma in visited]

    def __call__(
        self,
        network: Network,
        x0: Tensor,
        labels: Tensor | None,
        step: int,
        slots: draws.Indices,
    ) -> Tensor:
        """Return the losses of clean samples x0 [N, *S] in `slots` [N] of a step; [N]."""
        of_step = (self.config.run.seed, step, slots)
        if labels is not None:
            dropped = draws.drops(*of_step, self.student.label_dropout)
            labels = torch.where(dropped, self.spec.classes, labels).to(self.device)
        noise = draws.normal(*of_step, self.spec.shape).to(self.device)
        stage = self.stages[self.stage_at(step)]
        chosen = draws.choices(*of_step, stage.weights)
        path = [self.level(each, x0.ndim) for each in torch.from_numpy(stage.paths[chosen]).T]
        student = _denoiser(network, self._table, labels)
        bound = self._clipped
        nets = Denoisers(
            student,
            lambda x, level: bound(_still(student, x, level)),
            lambda x, level: bound(_still(self.taught(labels), x, level)),
        )
        return self.method.loss(nets, x0, noise, path, self.spec.sigma_data)

    def taught(self, labels: Tensor | None) -> Denoiser:
        """Return the teacher's D, guided (Ho and Salimans 2021, eq. 6, with scale = 1 + w).

        A student that has become the teacher has the guidance within it.
        """
        spec = self.spec if self._renewed else self._first_spec
        table = self._tables[spec.parameterization]
        scale = 1.0 if self._renewed else self.student.guidance_scale
        plain = _denoiser(self.evaluate, table, labels)
        if labels is None or scale == 1:
            return plain
        without = _denoiser(self.evaluate, table, torch.full_like(labels, self.spec.classes))

        def guided(x: Tensor, level: Level) -> Tensor:
            base = without(x, level)
            return base + scale * (plain(x, level) - base)

        return guided

    @cached_property
    def _tables(self) -> dict[str, Levels]:
        specs = (self._first_spec, self.spec)
        return {
            spec.parameterization: _with_clean(level_table(spec, self.device)) for spec in specs
        }

    @property
    def _table(self) -> Levels:
        return self._tables[self.spec.parameterization]

    def level(self, index: Tensor, dimensions: int) -> Level:
        index = index.to(self.device)
        row = self._table.at(index, dimensions)
        return Level(index, row.alpha, row.sigma)

    def _clipped(self, denoised: Tensor) -> Tensor:
        """Clip D to the data's range, as programs do."""
        return denoised.clamp(*self.spec.data_range) if self.spec.data_range else denoised


def student_spec(config: DistillConfig, teacher: Checkpoint) -> ModelSpec:
    """Return the student's spec: its teacher's, but for what it predicts.

    UsageError if the teacher cannot do what is asked of the student.
    """
    asked = config.student
    if asked.guidance_scale != 1 and not teacher.spec.null_label:
        raise UsageError(
            f"guidance_scale {asked.guidance_scale} of a teacher that never learned the null label",
            "leave it out, or take a teacher that was trained with label_dropout",
        )
    if asked.label_dropout and not teacher.spec.null_label:
        raise UsageError(
            f"label_dropout {asked.label_dropout} of a teacher that never learned the null label",
            "leave it out",
        )
    if asked.parameterization is None:
        return teacher.spec
    return ModelSpec.from_dict(
        {**teacher.spec.to_dict(), "parameterization": asked.parameterization}
    )


def load_teacher(config: DistillConfig, data: Data) -> Checkpoint:
    """Load the teacher; UsageError if the data is not of its kind."""
    teacher = load_checkpoint(config.teacher)
    spec = teacher.spec
    if data.shape != spec.shape:
        raise UsageError(
            f"{config.data.source} has samples of shape {data.shape}, the teacher of {spec.shape}",
            "give data of the kind that it was trained on; see data.size and data.mode",
        )
    if data.classes != spec.classes:
        raise UsageError(
            f"{config.data.source} has {data.classes} classes, the teacher {spec.classes}",
            "set data.labels to the column of labels, or leave it out, as for the teacher",
        )
    return teacher


def _denoiser(network: Network, table: Levels, labels: Tensor | None) -> Denoiser:
    """Return D of a network; channels of a learned variance are left out."""
    known = {} if labels is None else {"label": labels}

    def denoise(x: Tensor, level: Level) -> Tensor:
        row = table.at(level.place, x.ndim)
        output = network(row.c_in * x, row.cond, **known)[:, : x.shape[1]]
        return row.c_skip * x + row.c_out * output

    return denoise


@torch.no_grad()
def _still(denoise: Denoiser, x: Tensor, level: Level) -> Tensor:
    """Return D without a gradient."""
    return denoise(x, level)


def _with_clean(table: Levels) -> Levels:
    """Add the clean sample as a last row, at which D = x whatever the network says."""
    end = dict.fromkeys(Levels._fields, 0.0) | {"alpha": 1.0, "c_in": 1.0, "c_skip": 1.0}
    rows = {
        name: torch.cat([column, column[:1] if name == "cond" else column.new_tensor([end[name]])])
        for name, column in table._asdict().items()
    }
    return Levels(**rows)
