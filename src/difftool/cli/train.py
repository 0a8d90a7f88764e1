"""difftool train: train a model, or continue a run."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from difftool.cli import options, runs
from difftool.errors import UsageError

if TYPE_CHECKING:
    from difftool.train import TrainConfig, TrainedRun

EXAMPLES = """\b
Examples:
  difftool train ddpm
  difftool train ncsn --preset ncsn-mnist --set network.arguments.channels=64 --out runs/mnist
  difftool train ddpm --config mine.toml --data photos/ --steps 100000 --print-config
  difftool train ddpm --preset digits-classes --init runs/digits --out runs/labelled
  difftool train --init imported --data photos/ --out runs/tuned
  difftool train --resume runs/digits
"""


class Method(StrEnum):
    """The kinds of model to train."""

    DDPM = "ddpm"
    NCSN = "ncsn"


_DEFAULT_PRESETS = {Method.DDPM: "digits", Method.NCSN: "toy"}


def train(
    method: Annotated[
        Method | None,
        Argument(
            metavar="METHOD",
            help="Kind of model: ddpm or ncsn. Not needed if another option says what to train.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Named configuration, such as ncsn-mnist; by default digits (ddpm) or toy (ncsn). "
            "An unknown name prints the list.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        Option(
            metavar="FILE.toml",
            help="Configuration of your own, as --print-config prints it; instead of --preset.",
        ),
    ] = None,
    data: Annotated[
        str | None, Option(metavar="SOURCE", help=f"Data to train on: {options.SOURCES}.")
    ] = None,
    init: Annotated[
        Path | None,
        Option(
            metavar="CHECKPOINT",
            help="Run or checkpoint, imported ones too, whose weights a new run starts from. "
            "Without --preset and --config it also says what to train.",
        ),
    ] = None,
    steps: runs.Steps = None,
    batch: runs.Batch = None,
    accumulate: Annotated[
        int | None,
        Option(
            metavar="COUNT",
            help="Micro-batches of each process in a step; with more, a step takes less memory.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        Option(metavar="SEED", help="Seed of initial weights, data order and noise, 0 to 2^63-1."),
    ] = None,
    assignments: runs.Settings = None,
    out: Annotated[
        Path | None,
        options.out(
            "RUN",
            "Folder of the run; by default runs/ and the name of --data, or of the configuration.",
        ),
    ] = None,
    resume: runs.Resume = None,
    no_resume: runs.NoResume = False,
    print_config: runs.PrintConfig = False,
    json: options.Json = False,
) -> None:
    """Train a DDPM or an NCSN, or continue a run.

    A run is a folder of checkpoints, metrics and sample grids. Ctrl-C saves a checkpoint. The same
    command then continues from it, and reaches the same weights as without the interruption.
    """
    from difftool.train import apply_overrides

    if resume is not None:
        others = {"--preset": preset, "--config": config, "--init": init, "--out": out}
        runs.require_alone(resume, others | {"--no-resume": no_resume})
        name, chosen = resume.resolve().name, _of_run(resume)
    elif init is not None and preset is None and config is None:
        from difftool.train import finetune_config

        name, chosen = f"{init.resolve().name}-tuned", finetune_config(init, data=data)
    else:
        name, chosen = _choose_config(method, preset, config)
    before = chosen.data.source
    flags = {
        "data.source": data,
        "network.init": None if init is None else str(init),
        "run.steps": steps,
        "run.batch": batch,
        "optimizer.accumulate": accumulate,
        "run.seed": seed,
    }
    chosen = apply_overrides(chosen, runs.overrides(flags, assignments))
    if method is not None and chosen.method != method:
        raise UsageError(
            f"{name} is a configuration for {chosen.method}, not {method}",
            f"run: difftool train {chosen.method}; or choose another configuration",
        )
    if print_config:
        runs.print_settings(chosen, json=json)
        return

    from difftool.data import run_name
    from difftool.train import train as run_training

    source = chosen.data.source
    own = name if source == before else run_name(source)
    run = resume or out or Path("runs") / own

    def make(folder: Path, shown: bool) -> "TrainedRun":
        return run_training(chosen, folder, resume=not no_resume, progress=shown)

    runs.make_run(run, f"training {name} into {run}", make, json=json)


def _of_run(run: Path) -> "TrainConfig":
    """Return the configuration of a run to resume."""
    from difftool.train import DistillConfig, run_config

    found = run_config(run)
    if isinstance(found, DistillConfig):
        raise UsageError(f"{run} is a distillation", f"run: difftool distill --resume {run}")
    return found


def _choose_config(
    method: Method | None, preset: str | None, config: Path | None
) -> "tuple[str, TrainConfig]":
    """Return the name of the configuration that the options choose, and the configuration."""
    from difftool.train import preset as named
    from difftool.train import read_toml

    if preset is not None and config is not None:
        raise UsageError("--preset and --config are both given", "give one of them")
    if config is not None:
        return config.stem, read_toml(config)
    if preset is None and method is None:
        raise UsageError(
            "METHOD is missing", "say ddpm or ncsn; or give --preset, --config, --init or --resume"
        )
    preset = _DEFAULT_PRESETS[method] if preset is None and method else preset
    assert preset is not None
    return preset, named(preset)
