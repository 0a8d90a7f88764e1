"""difftool distill: train a model of few steps from a trained one."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from difftool.cli import options, runs
from difftool.errors import UsageError

if TYPE_CHECKING:
    from difftool.train import DistillConfig, TrainedRun

EXAMPLES = """\b
Examples:
  difftool distill runs/digits --steps 4
  difftool distill cifar10 --data hf:uoft-cs/cifar10 --method progressive --steps 8 --out runs/fast
  difftool distill checkpoints/ddpm-mnist --preset ddpm-mnist-fast --out runs/ddpm-mnist-fast
  difftool distill --resume runs/digits-fast
  difftool distill runs/labelled --guidance-scale 2 --set run.batch=64 --print-config
"""


class Method(StrEnum):
    """The methods, as in `difftool.train.distillation.methods`, which --help must not import."""

    CONSISTENCY = "consistency"
    CONSISTENCY_TUNING = "consistency_tuning"
    PROGRESSIVE = "progressive"


def distill(
    checkpoint: Annotated[
        Path | None,
        Argument(
            metavar="CHECKPOINT",
            help="Run or checkpoint to learn from, imported ones too. Not needed with --resume.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        Option(
            metavar="SOURCE",
            help=f"Data as the teacher's, by default what it names itself: {options.SOURCES}.",
        ),
    ] = None,
    method: Annotated[
        Method | None,
        Option(
            metavar="NAME",
            help="consistency, consistency_tuning or progressive; consistency by default.",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        Option(metavar="COUNT", help="Network evaluations of the new model; 4 by default."),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        Option(
            metavar="SCALE",
            help="Guidance of the teacher that the new model does in one evaluation; 1 is none.",
        ),
    ] = None,
    train_steps: runs.Steps = None,
    batch: runs.Batch = None,
    seed: Annotated[
        int | None, Option(metavar="SEED", help="Seed of data order and noise, 0 to 2^63-1.")
    ] = None,
    preset: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Named configuration, such as ddpm-mnist-fast. An unknown name prints the list.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        Option(
            metavar="FILE.toml",
            help="Configuration of your own, as --print-config prints it; instead of --preset.",
        ),
    ] = None,
    assignments: runs.Settings = None,
    out: Annotated[
        Path | None,
        options.out("RUN", "Folder of the run; by default runs/ and CHECKPOINT's name with -fast."),
    ] = None,
    resume: runs.Resume = None,
    no_resume: runs.NoResume = False,
    print_config: runs.PrintConfig = False,
    json: options.Json = False,
) -> None:
    """Train a model that samples in a few steps from a trained one.

    The run is a folder like that of difftool train. Ctrl-C saves a checkpoint, and the same command
    continues from it. Export the run to sample from it.
    """
    from difftool.train import apply_overrides

    if resume is not None:
        others = {"--preset": preset, "--config": config, "--out": out, "--no-resume": no_resume}
        runs.require_alone(resume, others)
        chosen = _of_run(resume)
        run, what = resume, checkpoint or Path(chosen.teacher)
    elif checkpoint is not None:
        chosen = _choose_config(checkpoint, data, method, preset, config)
        run, what = out or Path("runs") / f"{checkpoint.resolve().name}-fast", checkpoint
    else:
        raise UsageError("CHECKPOINT is missing", "give the model to learn from, or --resume RUN")
    flags = {
        "teacher": None if checkpoint is None else str(checkpoint),
        "data.source": data,
        "student.method": None if method is None else method.value,
        "student.steps": steps,
        "student.guidance_scale": guidance_scale,
        "run.steps": train_steps,
        "run.batch": batch,
        "run.seed": seed,
    }
    chosen = apply_overrides(chosen, runs.overrides(flags, assignments))
    if print_config:
        runs.print_settings(chosen, json=json)
        return

    from difftool.train import distill as run_distillation

    def make(folder: Path, shown: bool) -> "TrainedRun":
        return run_distillation(chosen, folder, resume=not no_resume, progress=shown)

    runs.make_run(run, f"distilling {what} into {run}", make, json=json)


def _of_run(run: Path) -> "DistillConfig":
    """Return the configuration of a run to resume."""
    from difftool.train import DistillConfig, run_config

    found = run_config(run)
    if not isinstance(found, DistillConfig):
        raise UsageError(f"{run} is no distillation", f"run: difftool train --resume {run}")
    return found


def _choose_config(
    checkpoint: Path,
    data: str | None,
    method: Method | None,
    preset: str | None,
    config: Path | None,
) -> "DistillConfig":
    """Return the configuration that the options choose."""
    from difftool.train import distill_config, distill_preset, read_distill_toml

    if preset is not None and config is not None:
        raise UsageError("--preset and --config are both given", "give one of them")
    if preset is not None:
        return distill_preset(preset)
    if config is not None:
        return read_distill_toml(config)
    return distill_config(checkpoint, data=data, method=method or Method.CONSISTENCY)
