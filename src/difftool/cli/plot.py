"""difftool plot: draw pictures of a model, its schedule, its programs and its training."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, Typer

from difftool.cli import options
from difftool.cli.console import report, warn
from difftool.cli.grouped import Command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = """\b
Examples:
  difftool plot scores runs/toy/bundle --level 9 --level 0 --out scores.png
  difftool plot trajectory --sampler ddim --steps 50 -n 4 --out strip.png
  difftool plot program ncsn-mnist --out program.svg
  difftool plot schedule --out schedule.pdf
  difftool plot training runs/digits runs/other --out losses.png
"""

plot = Typer(help="Draw scores, trajectories, programs, schedules and trainings.")

Out = Annotated[
    Path | None,
    options.out(
        "FILE",
        "File to write, ending in .png, .svg or .pdf; by default the command's name and .png.",
    ),
]


@plot.command(cls=Command)
def scores(
    model: options.Model,
    levels: Annotated[
        list[int] | None,
        Option(
            "--level",
            metavar="INDEX",
            help="Noise level to draw, 0 for the least noise; repeatable. By default most, middle "
            "and least.",
        ),
    ] = None,
    label: Annotated[
        int | None,
        Option(
            metavar="CLASS", help="Class to draw, from 0, of a model with classes; none by default."
        ),
    ] = None,
    backend: options.Backend = None,
    device: options.Device = 0,
    out: Out = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Draw the score field of a model of 2-D points."""
    path, format = _choose(out, "scores", force)
    from difftool.plot import draw_scores
    from difftool.runtime import load

    opened = load(model, backend=backend, device=device)
    figure = draw_scores(opened, levels or None, label=label)
    _write(figure, path, format, {"model": model}, json)


@plot.command(cls=Command)
def trajectory(
    model: options.Model = options.DEFAULT_MODEL,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    n: options.Count = 8,
    seed: options.Seed = 0,
    backend: options.Backend = None,
    device: options.Device = 0,
    out: Out = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Draw how samples form, as a strip of images or as paths."""
    path, format = _choose(out, "trajectory", force)
    from difftool.diffusion import caveats
    from difftool.plot import draw_trajectory
    from difftool.runtime import load

    opened = load(model, backend=backend, device=device)
    call = options.sampler_call(sampler, steps, eta, assignments)
    compiled = options.choose_program(opened.bundle, call)
    figure = draw_trajectory(opened, compiled, n=n, seed=seed)
    warnings = caveats(compiled, opened.spec, opened.default_program())
    record = {"model": model, "program": compiled.name, "n": n, "seed": seed}
    _write(figure, path, format, record, json, warnings)


@plot.command(cls=Command)
def program(
    model: options.Model = options.DEFAULT_MODEL,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    out: Out = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Draw the noise levels and coefficients of a program."""
    path, format = _choose(out, "program", force)
    from difftool.diffusion import caveats
    from difftool.plot import draw_program

    bundle, compiled = options.open_program(model, sampler, steps, eta, assignments)
    warnings = caveats(compiled, bundle.spec, bundle.default_program())
    record = {"model": model, "program": compiled.name}
    _write(draw_program(compiled), path, format, record, json, warnings)


@plot.command(cls=Command)
def schedule(
    model: options.Model = options.DEFAULT_MODEL,
    out: Out = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Draw the noise levels that a model was trained on."""
    path, format = _choose(out, "schedule", force)
    from difftool.plot import draw_schedule
    from difftool.runtime import open_bundle

    levels = open_bundle(model).spec.schedule
    record = {"model": model, "schedule": str(levels)}
    _write(draw_schedule(levels), path, format, record, json)


@plot.command(cls=Command)
def training(
    runs: Annotated[
        list[Path], Argument(metavar="RUN...", help="Folders of runs, drawn beside each other.")
    ],
    out: Out = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Draw the losses and the learning rate of runs."""
    path, format = _choose(out, "training", force)
    from difftool.plot import draw_training
    from difftool.train import read_metrics

    short = {run: run.resolve().name for run in runs}
    alone = len({*short.values()}) == len(short)
    records = {short[run] if alone else str(run): read_metrics(run) for run in runs}
    steps = {name: found[-1]["step"] for name, found in records.items()}
    _write(draw_training(records), path, format, {"runs": steps}, json)


def _choose(out: Path | None, name: str, force: bool) -> tuple[Path, str]:
    """Return the file to write and its format. UsageError if it cannot be written."""
    path = out or Path(f"{name}.png")
    return path, options.picture_format(path, force=force)


def _write(
    figure: "Figure",
    path: Path,
    format: str,
    record: Mapping[str, Any],
    json: bool,
    warnings: tuple[str, ...] | None = None,
) -> None:
    """Write a picture and report it, with the warnings if it is of a program."""
    from difftool.files import file_sha256, write_atomic
    from difftool.plot import encode

    write_atomic(path, encode(figure, format))
    written = {"out": str(path), "format": format, "sha256": file_sha256(path)}
    if json:
        said = {} if warnings is None else {"warnings": warnings}
        report({**written, **record, **said}, as_json=True)
        return
    report({**written, **record}, as_json=False)
    warn(warnings or ())
