"""difftool likelihood: how well a checkpoint's model describes data."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from difftool.cli import options
from difftool.cli.console import report, telling

EXAMPLES = """\b
Examples:
  difftool likelihood runs/digits --data digits -n 16
  difftool likelihood checkpoints/ddpm-mnist --data ylecun/mnist --steps 100 --json
  difftool likelihood checkpoints/ddpm-mnist --data test.parquet --method bound
"""


class Method(StrEnum):
    """How the likelihood is found."""

    ODE = "ode"
    BOUND = "bound"


def likelihood(
    checkpoint: Annotated[
        Path,
        Argument(
            metavar="CHECKPOINT",
            help="A run's folder, of which the newest is taken, or a checkpoint's.",
        ),
    ],
    data: Annotated[
        str,
        Option(
            metavar="SOURCE",
            help="A folder of images, a parquet file, a hub name, digits, or a 2-D toy.",
        ),
    ],
    split: Annotated[str, Option(metavar="NAME", help="Of a hub data set.")] = "test",
    method: Annotated[
        Method,
        Option(help="The probability-flow ODE, for every model, or a DDPM's variational bound."),
    ] = Method.ODE,
    n: Annotated[int, Option("-n", "--n", metavar="COUNT", help="How many of the first.")] = 32,
    seed: Annotated[
        int, Option(metavar="SEED", help="0 to 2^64-1; fixes all noise, and the points of a toy.")
    ] = 0,
    steps: Annotated[
        int | None,
        Option(
            metavar="COUNT",
            help="ode: steps of Runge and Kutta's method, 4 evaluations each; 50 by default.",
            show_default=False,
        ),
    ] = None,
    probes: Annotated[
        int | None,
        Option(
            metavar="COUNT",
            help="ode: random directions that the divergence is estimated from; 0 is all "
            "dimensions, exactly. 1 by default, and 0 for points.",
            show_default=False,
        ),
    ] = None,
    max_batch: Annotated[
        int, Option(metavar="COUNT", help="Samples that run together; no figure depends on it.")
    ] = 32,
    raw: Annotated[
        bool, Option("--raw", help="Take the last weights instead of their moving average.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Measure the negative log likelihood of data under a model.

    Images count in bits per dimension, points in nats per sample; less is better. The standard
    error says how well the mean over these n stands for all data.
    """
    from dataclasses import asdict

    from difftool.train import measure_likelihood

    with telling(quiet=json) as tell:
        found = measure_likelihood(
            checkpoint,
            data,
            split=split,
            method=method.value,
            n=n,
            seed=seed,
            steps=steps,
            probes=probes,
            max_batch=max_batch,
            ema=not raw,
            on_step=tell,
        )
    record = asdict(found)
    settings, path = record.pop("settings"), record.pop("checkpoint")
    weights = record.pop("weights")
    report(
        {**record, **settings, "data": data, "checkpoint": str(path), "weights": weights},
        as_json=json,
    )
