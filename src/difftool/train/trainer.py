"""The training loop: steps, records, checkpoints, and the end of a run."""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from difftool import checkpoint as ckpt
from difftool.data import Items
from difftool.diffusion.samplers import compile_program
from difftool.errors import (
    Cancelled,
    CheckFailed,
    ResourceError,
    UsageError,
    is_out_of_memory,
)
from difftool.files import locked, write_atomic
from difftool.train.config import TrainConfig, to_toml
from difftool.train.data import given_data, load_data
from difftool.train.distillation.config import DistillConfig
from difftool.train.distillation.distillation import load_teacher
from difftool.train.monitor import Interrupt, Monitor
from difftool.train.ncsnv2 import resolve
from difftool.train.preview import Preview
from difftool.train.processes import Vote, require_same_step, together
from difftool.train.progress import counted, duration, tell_resumed
from difftool.train.state import TrainState
from difftool.train.trackers import opened, require_trackers
from difftool.train.validation import Validation, divided


@dataclass(frozen=True)
class TrainedRun:
    """A finished run; as text, a sentence for people.

    - `path`, `checkpoint`: its folder, and its last checkpoint
    - `step`: the number of all its steps
    - `taken`, `seconds`: the steps that this call took, and its time
    - `loss`: that of the last record, a mean over the steps since the one before; None if this call
      took no step
    - `validation_loss`: that after the last step; None without validation
    """

    path: Path
    checkpoint: Path
    step: int
    taken: int
    seconds: float
    loss: float | None
    validation_loss: float | None = None

    def __str__(self) -> str:
        if self.loss is None:
            return f"all {counted(self.step, 'step')} were done before -> {self.path}"
        steps = counted(self.taken, "step") + (f" to {self.step}" if self.taken < self.step else "")
        held = self.validation_loss
        losses = f"loss {self.loss:.4g}" + (f", validation loss {held:.4g}" if held else "")
        return f"{steps} in {duration(self.seconds)}, {losses} -> {self.path}"


@together()
def train(
    config: TrainConfig,
    out: Path | str,
    *,
    data: ArrayLike | Items | None = None,
    resume: bool = True,
    progress: bool = False,
) -> TrainedRun:
    """Train a DDPM or an NCSN into the run folder `out`.

    Ctrl-C and SIGTERM save a checkpoint after the current step.

    Args:
        config: what to train, on which data, and for how long; see `preset` and `read_toml`.
        out: the run folder: checkpoints, metrics and sample grids.
        data: an array to train on instead of `config.data`, of which `flip` and `dequantize`
            remain: uint8 images [N, H, W] or [N, H, W, C], or points [N, D]. For labels give what
            `difftool.data.from_array` makes.
        resume: go on from the newest whole checkpoint if the folder holds a run. It ends with the
            same weights as a run that was never interrupted, bit for bit on a CPU.
        progress: show the progress on stderr: a bar on a terminal, else a line now and then.

    Raises:
        UsageError: data, network and configuration do not fit, `out` holds another run, or another
            process trains there.
        ArtefactError: the checkpoint to continue from is damaged.
        CheckFailed: the loss is not finite.
        Cancelled: Ctrl-C or SIGTERM stopped the run.
        ResourceError: memory or the disk is too small, `out` may not be written to, or another
            process of this training ended.

    Examples:
        >>> config = difftool.train.apply_overrides(
        ...     difftool.train.preset("toy"), ["run.steps=20"]
        ... )
        >>> run = difftool.train.train(config, "runs/toy")
        >>> run.step
        20

        Images in memory:

        >>> import numpy as np
        >>> images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
        >>> config = difftool.train.apply_overrides(
        ...     difftool.train.preset("digits"),
        ...     ["run.steps=1", "run.batch=4", "network.arguments.channels=16"],
        ... )
        >>> difftool.train.train(config, "runs/mine", data=images).step
        1
    """
    run = Path(out)
    begun = _begun(run, resume)  # a first look, before the data is loaded
    require_trackers(config.run.trackers)
    if data is None:
        loaded = load_data(config.data, config.run.seed)
    else:
        config, loaded = given_data(config, data)
    loaded, held = divided(config, loaded)
    config = resolve(config, loaded)
    with _memory(config):
        state = TrainState(config, loaded)
    if config.network.init is not None and not begun:
        state.start_from(config.network.init)
    validation = None
    if held is not None:
        validation = Validation(config, held, state.spec, state.accelerator)
    return _run(state, run, validation, resume=resume, progress=progress)


@together()
def distill(
    config: DistillConfig, out: Path | str, *, resume: bool = True, progress: bool = False
) -> TrainedRun:
    """Train a student of few steps from a trained model, its teacher, into the run folder `out`.

    The run is like that of `train`: it stops, resumes, records and samples in the same way.
    `difftool.export.export` makes a bundle of it, which says what it was distilled from.

    Args:
        config: the teacher, the method, the data, and how long; see `distill_config` and
            `distill_preset`.
        out: the run folder: checkpoints, metrics and sample grids.
        resume: go on from the newest whole checkpoint if the folder holds a run. It ends with the
            same weights as a run that was never interrupted, bit for bit on a CPU.
        progress: show the progress on stderr: a bar on a terminal, else a line now and then.

    Raises:
        UsageError: data, teacher and configuration do not fit, or `out` holds another run.
        ArtefactError: the teacher or the checkpoint to continue from is damaged.
        CheckFailed: the loss is not finite.
        Cancelled: Ctrl-C or SIGTERM stopped the run.
        ResourceError: memory or the disk is too small, `out` may not be written to, or another
            process of this training ended.

    Examples:
        >>> config = difftool.train.distill_config("runs/digits", data="digits", steps=2)
        >>> config = difftool.train.apply_overrides(config, ["run.steps=16", "run.batch=8"])
        >>> run = difftool.train.distill(config, "runs/digits-fast")
        >>> run.step
        16
    """
    run = Path(out)
    _begun(run, resume)  # a first look, before the data is loaded
    require_trackers(config.run.trackers)
    data = load_data(config.data, config.run.seed)
    with _memory(config):
        state = TrainState(config, data, load_teacher(config, data))
    return _run(state, run, None, resume=resume, progress=progress)


def _run(
    state: TrainState, run: Path, validation: Validation | None, *, resume: bool, progress: bool
) -> TrainedRun:
    """Take all steps that are left of a run."""
    config, since = state.config, time.monotonic()
    # An impossible sampler is an error now, and not after the training.
    compile_program(state.spec, state.sampler)
    preview = Preview(run, state.spec, state.sampler) if config.run.sample_every else None
    main = state.accelerator.is_main_process
    with locked(run, wait=False) if main else contextlib.nullcontext():
        state.accelerator.wait_for_everyone()  # the main process has the lock from here on
        if _begun(run, resume):
            state.restore(ckpt.find_checkpoint(run))
        require_same_step(state.accelerator, state.step)
        if main:
            write_atomic(run / "config.toml", to_toml(config).encode())
        with _memory(config):
            first = state.step
            if progress and main and 0 < first < config.run.steps:
                tell_resumed(run, first, state.changes)
            last = _loop(state, run, preview, validation, progress)
        return TrainedRun(
            run,
            ckpt.find_checkpoint(run),
            state.step,
            taken=state.step - first,
            seconds=time.monotonic() - since,
            loss=last.get("loss"),
            validation_loss=last.get("validation_loss"),
        )


@contextlib.contextmanager
def _memory(config: TrainConfig | DistillConfig) -> Iterator[None]:
    """Raise ResourceError if memory runs out; torch has no common class for that."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            f"no memory to train a batch of {config.run.batch}",
            "lower run.batch, raise optimizer.accumulate, or make the network narrower",
        ) from error


def _begun(run: Path, resume: bool) -> bool:
    """Tell if a folder holds a run; UsageError if it does and is not to be resumed."""
    begun = bool(ckpt.list_checkpoints(run))
    if begun and not resume:
        raise UsageError(f"{run} already holds a run", "resume it, or choose another folder")
    return begun


class Window:
    """The steps since the last record.

    Losses stay on the device until the next record, because reading one waits for the device.
    """

    def __init__(self, state: TrainState) -> None:
        self.state = state
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.since = time.perf_counter()

    def add(self, loss: Tensor, norm: Tensor) -> None:
        self.losses.append(loss)
        self.norms.append(norm)

    def close(self) -> dict[str, float]:
        """Return the means over steps and processes; CheckFailed if a value is not finite."""
        state, count = self.state, len(self.losses)
        losses = state.accelerator.reduce(torch.stack(self.losses), reduction="mean").tolist()
        norms = torch.stack(self.norms).tolist()
        seconds = time.perf_counter() - self.since
        for index, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise CheckFailed(
                    f"the loss is {loss} and its gradient {norm} at step "
                    f"{state.step - count + index}",
                    "lower optimizer.lr or set optimizer.clip; earlier checkpoints are whole",
                )
        if state.scaler.is_enabled() and state.scaler.get_scale() < 1:
            raise CheckFailed(
                f"gradients overflow float16 at step {state.step}, however small the loss is made",
                "set run.precision to bf16 or no; earlier checkpoints are whole",
            )
        return {
            "loss": sum(losses) / count,
            "lr": state.optimizer.param_groups[0]["lr"],
            "grad_norm": sum(norms) / count,
            "images_per_second": count * state.config.run.batch / seconds,
        }


def _loop(
    state: TrainState,
    run: Path,
    preview: Preview | None,
    validation: Validation | None,
    progress: bool,
) -> dict[str, float]:
    """Take the steps, and return the values of the last record; none if no step was left."""
    settings, main = state.config.run, state.accelerator.is_main_process
    # A run that is done already has no records to add, so no tracker starts for it.
    names = settings.trackers if state.step < settings.steps else ()
    record = state.config.model_dump(mode="json")
    track = partial(opened, names, run, state.step, record)
    monitoring = Monitor(
        run, start=state.step, steps=settings.steps, progress=progress, track=track
    )
    with monitoring if main else contextlib.nullcontext() as monitor, Interrupt() as interrupt:
        window, vote = Window(state), Vote(state.accelerator, state.step)
        values: dict[str, float] = {}
        while state.step < settings.steps:
            window.add(*state.advance())
            if monitor:
                monitor.advance()
            stop = vote.stops(state.step, interrupt.requested)
            # A loss that is not finite raises in `close`, before anything is saved.
            save = stop or _due(state, settings.checkpoint_every)
            draw = _due(state, settings.sample_every)
            validate = validation and _due(state, validation.every)
            if save or draw or validate or _due(state, settings.log_every):
                values = window.close()
                if validation and validate:
                    values["validation_loss"] = validation.loss(state.network)
                if monitor:
                    monitor.record(state.step, **values)
                if save and main:
                    state.save(run)
                if preview and draw and monitor:
                    sheet = preview.draw(state.step, state.network, state.ema.average)
                    monitor.picture(state.step, sheet)
                window = Window(state)
            if stop and state.step < settings.steps:
                message = f"stopped after step {state.step} of {settings.steps}"
                raise Cancelled(message, "resume to go on")
    state.accelerator.wait_for_everyone()
    return values


def _due(state: TrainState, every: int | None) -> bool:
    """Tell if an event is due that happens `every` so many steps and at the end; None is never."""
    return every is not None and (state.step % every == 0 or state.step == state.config.run.steps)
