"""The state of a run between two steps: weights, their average, Adam's moments and the step."""

import contextlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from difftool import checkpoint as ckpt
from difftool.errors import ArtefactError, UsageError, quoted
from difftool.files import read_json
from difftool.log import logger
from difftool.networks import build_network, num_parameters
from difftool.networks.trained import Checkpoint
from difftool.train import draws
from difftool.train.config import TrainConfig, model_spec, network_call, parse_as
from difftool.train.data import Data
from difftool.train.distillation.config import DistillConfig
from difftool.train.distillation.distillation import Distillation
from difftool.train.ema import Ema
from difftool.train.objective import Conditioned, Objective
from difftool.train.processes import join
from difftool.train.rehearsal import rehearse, require_memory
from difftool.train.resuming import EDITED, require_same_run, require_same_teacher
from difftool.train.start import start_weights

MOMENTS = ("exp_avg", "exp_avg_sq")
_OPTIMIZERS: Final = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}

log = logger(__name__)


class TrainState:
    """Everything that a step changes, and the step itself.

    After `step` steps it is a pure function of the configuration and the data: noise, levels, order
    and dropout of a step depend on (seed, step) alone, so no generator state is saved.
    """

    def __init__(
        self, config: TrainConfig | DistillConfig, data: Data, teacher: Checkpoint | None = None
    ) -> None:
        self.config, self.data, self.step = config, data, 0
        self.changes = ""  # in the configuration, since the checkpoint that it goes on from
        self.accelerator = join(config.run.precision)
        device = self.accelerator.device
        self.objective: Objective | Distillation
        if isinstance(config, TrainConfig):
            spec = model_spec(config, data.shape, data.classes)
            self.spec = replace(spec, class_names=data.names)
            self.call, self.sampler = network_call(config, self.spec), config.sampler.call
            rehearse(config, self.spec, self.call, data)
            self.objective = Objective(config, self.spec, device)
            self.distillation = None
        else:
            assert teacher is not None
            require_memory(num_parameters(teacher.network), config, data)
            self.objective = self.distillation = Distillation(config, teacher, device)
            self.spec, self.call = self.distillation.spec, teacher.call
            self.sampler = self.distillation.sampler
        self.slots = _slots(config, self.accelerator)
        torch.manual_seed(config.run.seed)
        self.network = build_network(self.call)
        if self.distillation is not None:
            self.network.load_state_dict(self.distillation.teacher.state_dict())
            # Without dropout, so that a student and its targets differ by what is to be learned.
            self.network.eval()
        self.channels_last = config.run.channels_last and len(data.shape) == 3
        if self.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = self.accelerator.prepare(Conditioned(self.network, config.run.precision))
        self.ema = Ema(self.network, decay=config.ema.decay, warmup=config.ema.warmup)
        self.optimizer = _OPTIMIZERS[config.optimizer.kind](
            self.network.parameters(),
            config.optimizer.lr,
            config.optimizer.betas,
            config.optimizer.eps,
            config.optimizer.weight_decay,
            fused=True,
        )
        # It multiplies the loss so that gradients do not vanish in float16, and leaves a step out
        # if they overflow. In other precisions it does nothing.
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.run.precision == "fp16")
        self._order_buckets()

    def _order_buckets(self) -> None:
        """If there are other processes, take a backward pass with them, and drop its gradients.

        DDP sorts its buckets anew after its first one, and the order decides how sums of three and
        more processes are rounded. Without this, the first step after a resume would be rounded
        otherwise than in a run that goes on.
        """
        if self.accelerator.num_processes > 1:
            self.accelerator.backward(self.scaler.scale(self._loss(self.slots[-1])))
            self.optimizer.zero_grad(set_to_none=True)

    def start_from(self, path: str) -> None:
        """Take the weights of a checkpoint, before the first step; it raises as `start_weights`."""
        start_weights(path, self.network, self.call, self.spec)
        self.ema.load({name: value.detach() for name, value in self.network.named_parameters()})

    def advance(self) -> tuple[Tensor, Tensor]:
        """Take one step; return this process's mean loss and the gradient norm, on the device."""
        settings = self.config.optimizer
        process = self.accelerator.process_index
        torch.manual_seed(draws.torch_seed(self.config.run.seed, self.step, process))
        if self.distillation is not None and self.distillation.begins_stage(self.step):
            self._renew_teacher(self.distillation)
        # The rate is a function of the step, so a resumed run needs no scheduler's state.
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr()
        self.optimizer.zero_grad(set_to_none=True)
        parts = []
        for index, slots in enumerate(self.slots):
            # Processes exchange gradients only once, with the last micro-batch.
            last = index == len(self.slots) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                loss = self._loss(slots) / len(self.slots)
                self.accelerator.backward(self.scaler.scale(loss))
            parts.append(loss.detach())
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.is_enabled():  # an overflow is no failure: the step was left out
            norm = norm.nan_to_num(0.0, 0.0, 0.0)
        self.ema.update(self.step)
        self.step += 1
        return torch.stack(parts).sum(), norm

    def _lr(self) -> float:
        if self.distillation is not None:
            return self.distillation.lr_at(self.step)
        return self.config.optimizer.lr_at(self.step, self.config.run.steps)

    def _renew_teacher(self, distillation: Distillation) -> None:
        """Go on from the averaged weights, as both the teacher and the student of a new stage."""
        self.network.load_state_dict({**self.network.state_dict(), **self.ema.average})
        distillation.renew(self.network)

    def _loss(self, slots: draws.Indices) -> Tensor:
        seed, batch = self.config.run.seed, self.config.run.batch
        x0, labels = self.data.batch(self.spec, seed, self.step, batch, slots)
        x0 = x0.to(self.accelerator.device)
        if self.channels_last:
            x0 = x0.contiguous(memory_format=torch.channels_last)
        return self.objective(self.model, x0, labels, self.step, slots).mean()

    def save(self, run: Path) -> Path:
        """Write the checkpoint of this step into a run folder, and return the checkpoint."""
        folder = run / "checkpoints" / f"step-{self.step:09d}"
        moments = {
            f"{name}.{key}": self.optimizer.state[parameter][key]
            for name, parameter in self.network.named_parameters()
            for key in MOMENTS
        }
        weights = self.network.state_dict()
        ckpt.save_checkpoint(
            folder,
            step=self.step,
            spec=self.spec,
            network=self.call,
            sampler=self.sampler,
            training=self.config.model_dump(mode="json"),
            tensors={
                ckpt.MODEL: weights,
                ckpt.EMA: {**weights, **self.ema.average},
                ckpt.OPTIMIZER: {**moments, **self._teachers()},
            },
            optimizer=self._optimizer_record(),
            data=self._data_record(),
            processes=self.accelerator.num_processes,
            distilled=None if self.distillation is None else self.distillation.record(),
            replace=ckpt.all_files,  # a damaged one may be left, if the run resumed before it
        )
        ckpt.prune(folder, self.config.run.keep)
        return folder

    def restore(self, folder: Path) -> None:
        """Continue from a checkpoint of the same run."""
        saved = ckpt.read_config(folder)
        self.changes = require_same_run(saved["training"], self.config, folder)
        if self.distillation is not None:
            require_same_teacher(saved.get("distilled"), self.distillation.record(), folder)
        self._check_same_data(saved.get("data"), folder)
        self._report_split(saved)
        if ckpt.OPTIMIZER not in saved["files"]:
            raise ArtefactError(f"{folder} holds weights only", "resume from another checkpoint")
        updates = self._restore_optimizer(folder, saved["step"])
        weights, parameters = self.network.state_dict(), dict(self.network.named_parameters())
        like = {f"{name}.{key}": value for name, value in parameters.items() for key in MOMENTS}
        teachers = self._teachers()
        moments = ckpt.read_tensors(folder / ckpt.OPTIMIZER, {**like, **teachers})
        self.ema.load(ckpt.read_tensors(folder / ckpt.EMA, weights))
        self.network.load_state_dict(ckpt.read_tensors(folder / ckpt.MODEL, weights))
        for name, parameter in parameters.items():
            # The fused kernel needs the moments laid out in memory as their parameter is.
            state = {
                key: torch.empty_like(parameter).copy_(moments[f"{name}.{key}"]) for key in MOMENTS
            }
            state["step"] = torch.tensor(float(updates), device=parameter.device)
            self.optimizer.state[parameter] = state
        self.step = saved["step"]
        if self.distillation is not None:
            self.distillation.restore({name: moments[name] for name in teachers}, self.step)

    def _optimizer_record(self) -> dict[str, Any]:
        """Return what optimizer.json holds: with a scaler, fewer updates than steps."""
        record = {"kind": self.config.optimizer.kind, "updates": self.step}
        if not self.scaler.is_enabled():
            return record
        taken = (int(state["step"]) for state in self.optimizer.state.values())
        return record | {"updates": next(taken, 0), "scaler": self.scaler.state_dict()}

    def _restore_optimizer(self, folder: Path, step: int) -> int:
        """Take up the scaler's state, and return the number of updates."""
        path, record = folder / ckpt.OPTIMIZER_JSON, read_json(folder / ckpt.OPTIMIZER_JSON)
        expected = {"kind": self.config.optimizer.kind, "updates": step}
        if self.scaler.is_enabled() and isinstance(record, dict):
            state, updates = record.pop("scaler", None), record.get("updates")
            like = self.scaler.state_dict()
            if _is_like(state, like) and type(updates) is int and 0 <= updates <= step:
                self.scaler.load_state_dict(state)
                expected["updates"] = updates
        if record != expected:
            raise ArtefactError(
                f"{path} is not from this {expected['kind']} run", "resume from another checkpoint"
            )
        return int(expected["updates"])

    def _teachers(self) -> dict[str, Tensor]:
        """Return the weights of other networks that a step depends on."""
        return {} if self.distillation is None else self.distillation.tensors()

    def _report_split(self, saved: dict[str, Any]) -> None:
        """Warn if batches are split otherwise than before; early versions did not keep how."""
        training = parse_as(type(self.config), saved["training"])
        before = saved.get("processes"), training.optimizer.accumulate
        now = self.accelerator.num_processes, self.config.optimizer.accumulate
        if before[0] is None or before == now or not self.accelerator.is_main_process:
            return
        log.warning(
            "a batch is now split over %d x %d processes x micro-batches, and was over %s x %d: "
            "the run goes on with the same samples and noise, but other rounding and dropout",
            *now,
            quoted(before[0]),
            before[1],
        )

    def _data_record(self) -> dict[str, Any]:
        return {"items": len(self.data.items), "sha256": self.data.sha256}

    def _check_same_data(self, saved: Any, folder: Path) -> None:
        """Raise UsageError for other data; checkpoints of early versions have no record of it."""
        present = self._data_record()
        if saved is None or saved == present:
            return
        if not isinstance(saved, dict) or saved.keys() != present.keys():
            raise ArtefactError(f"{folder / ckpt.CONFIG} mistypes data", EDITED)
        # The first digits of a digest distinguish two data sets; all digits are in config.json.
        old, new = (f"{str(each['sha256'])[:16]}..." for each in (saved, present))
        raise UsageError(
            f"{folder} was trained on {str(saved['items'])[:16]} items with the sha256 {old}, "
            f"not on these {present['items']} with {new}",
            "give the same data, or another output folder",
        )


def _is_like(state: Any, like: dict[str, Any]) -> bool:
    """Tell if a saved state has the keys of another, and a positive number for each."""
    if not isinstance(state, dict) or state.keys() != like.keys():
        return False
    return all(type(value) in (int, float) and 0 <= value < math.inf for value in state.values())


def _slots(config: TrainConfig | DistillConfig, accelerator: Accelerator) -> list[draws.Indices]:
    """Return this process's part of a batch's slots, by micro-batch."""
    batch, processes = config.run.batch, accelerator.num_processes
    parts = processes * config.optimizer.accumulate
    if batch % parts:
        raise UsageError(
            f"a batch of {batch} does not split over {processes} processes "
            f"with {config.optimizer.accumulate} micro-batches each",
            f"make run.batch a multiple of {parts}",
        )
    split = np.arange(batch).reshape(processes, config.optimizer.accumulate, -1)
    return list(split[accelerator.process_index])
