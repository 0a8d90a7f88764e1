"""What `difftool train` and `difftool distill` have in common: options, and how a run is made."""

import json as jsonlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from difftool.cli.console import is_quiet, is_verbose, narrate, outline, report, say
from difftool.errors import UsageError
from difftool.outputs import require_no_bundle

if TYPE_CHECKING:
    from difftool.train import DistillConfig, TrainConfig, TrainedRun

Steps = Annotated[int | None, Option(metavar="COUNT", help="Total number of optimizer steps.")]
Batch = Annotated[
    int | None, Option(metavar="COUNT", help="Samples in each step, over all processes.")
]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Change any setting, such as optimizer.lr=1e-4; repeatable. See --print-config.",
    ),
]
Resume = Annotated[
    Path | None,
    Option(metavar="RUN", help="Run to continue; it needs no other option, since it names all."),
]
NoResume = Annotated[
    bool, Option("--no-resume", help="Refuse a folder that holds a run, instead of continuing it.")
]
PrintConfig = Annotated[
    bool, Option("--print-config", help="Print the whole configuration as TOML; train nothing.")
]


def overrides(flags: Mapping[str, Any], settings: Sequence[str] | None) -> list[str]:
    """Return the flags that were given as settings, and then those of --set, which go first."""
    given = [
        f"{key}={jsonlib.dumps(value, ensure_ascii=False)}"
        for key, value in flags.items()
        if value is not None
    ]
    return [*given, *(settings or ())]


def require_alone(resume: Path, others: Mapping[str, object]) -> None:
    """Raise UsageError if --resume has company that would have no effect."""
    for name, value in others.items():
        if value not in (None, False):
            raise UsageError(
                f"--resume {resume} and {name} are both given",
                "leave one out: the run has its own configuration and folder",
            )


def print_settings(chosen: "TrainConfig | DistillConfig", *, json: bool) -> None:
    """Print a whole configuration as TOML, or as a JSON document."""
    from difftool.train import to_toml

    if json:
        report(chosen.model_dump(mode="json"), as_json=True)
    else:
        print(to_toml(chosen), end="")


def make_run(
    run: Path, saying: str, make: "Callable[[Path, bool], TrainedRun]", *, json: bool
) -> None:
    """Make a run in a folder, and report it.

    `make` takes the folder and whether the progress is shown. Of the processes that torchrun
    started the first one alone speaks.
    """
    require_no_bundle(run / "checkpoints")
    first = os.environ.get("RANK", "0") == "0"
    if first:
        narrate(saying)
    made = make(run, not (json or is_quiet()))
    if not first:
        return
    record = {
        "run": str(made.path),
        "checkpoint": str(made.checkpoint),
        "step": made.step,
        "taken": made.taken,
        "seconds": made.seconds,
        "loss": made.loss,
        "validation_loss": made.validation_loss,
    }
    if json:
        report(record, as_json=True)
        return
    if is_verbose():
        say("\n".join(outline(record)))
    say(str(made))
