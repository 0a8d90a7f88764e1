"""difftool train: train a model, or go on with a run."""

import json as jsonlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from difftool.cli import options
from difftool.cli.console import is_terminal, narrate, report
from difftool.errors import UsageError

if TYPE_CHECKING:
    from difftool.train import TrainConfig

EXAMPLES = """\b
Examples:
  difftool train ddpm
  difftool train ncsn --preset ncsn-mnist --set network.arguments.channels=64 --out runs/mnist
  difftool train ddpm --config mine.toml --data photos/ --steps 100000 --print-config
"""


class Method(StrEnum):
    """What to train."""

    DDPM = "ddpm"
    NCSN = "ncsn"


_DEFAULT_PRESETS = {Method.DDPM: "digits", Method.NCSN: "toy"}


def train(
    method: Annotated[Method, Argument(metavar="METHOD", help="What to train.")],
    preset: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="A named recipe, such as ncsn-mnist; digits (ddpm) and toy (ncsn) by default. "
            "Any other word lists all.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        Option(
            metavar="FILE.toml",
            help="A recipe of your own, as --print-config writes it; instead of --preset.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        Option(
            metavar="SOURCE",
            help="A folder of images, a parquet file, a hub name, digits, or a 2-D toy.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None, Option(metavar="COUNT", help="Optimizer steps in all.", show_default=False)
    ] = None,
    batch: Annotated[
        int | None,
        Option(metavar="COUNT", help="Samples a step, over all processes.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None,
        Option(
            metavar="SEED",
            help="0 to 2^63-1; fixes weights, order and noise.",
            show_default=False,
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Any other setting, such as optimizer.lr=1e-4; repeatable. See --print-config.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option(
            "--out",
            "-o",
            metavar="RUN",
            help="Folder of the run; runs/NAME of the recipe by default.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, Option(help="Go on if a run is there, or refuse it and start only new ones.")
    ] = True,
    print_config: Annotated[
        bool, Option("--print-config", help="Print the whole configuration as TOML, and train not.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Train a DDPM or an NCSN, or go on with a run.

    A run is a folder of checkpoints, metrics and sample grids. Ctrl-C saves a checkpoint; the same
    command goes on from it, to the same weights as if it had never been interrupted.
    """
    from difftool.train import apply_overrides, to_toml

    name, recipe = _recipe(method, preset, config)
    flags = {"data.source": data, "run.steps": steps, "run.batch": batch, "run.seed": seed}
    given = [
        f"{key}={jsonlib.dumps(value, ensure_ascii=False)}"
        for key, value in flags.items()
        if value is not None
    ]
    recipe = apply_overrides(recipe, [*given, *(assignments or ())])
    if recipe.method != method:
        raise UsageError(
            f"{name} is a recipe for {recipe.method}, not {method}",
            f"difftool train {recipe.method}, or another recipe",
        )
    if print_config:
        if json:
            report(recipe.model_dump(mode="json"), as_json=True)
        else:
            print(to_toml(recipe), end="")
        return

    from difftool.train import train as run_training

    run = out or Path("runs") / name
    options.require_no_bundle(run / "checkpoints")
    narrate(f"training {name} into {run}")
    made = run_training(recipe, run, resume=resume, progress=is_terminal() and not json)
    report(
        {"run": str(made.path), "checkpoint": str(made.checkpoint), "step": made.step},
        as_json=json,
    )


def _recipe(method: Method, preset: str | None, config: Path | None) -> "tuple[str, TrainConfig]":
    """The recipe that the command line names, and its name."""
    from difftool.train import preset as named
    from difftool.train import read_toml

    if preset is not None and config is not None:
        raise UsageError("--preset and --config are both given", "give one of them")
    if config is not None:
        return config.stem, read_toml(config)
    preset = _DEFAULT_PRESETS[method] if preset is None else preset
    return preset, named(preset)
