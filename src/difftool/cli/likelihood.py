"""difftool likelihood: measure how well a checkpoint's model describes data."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from difftool.cli import options
from difftool.cli.console import progress, report

EXAMPLES = """\b
Examples:
  difftool likelihood runs/digits --data digits -n 16
  difftool likelihood checkpoints/ddpm-mnist --data hf:ylecun/mnist --steps 100 --json
  difftool likelihood checkpoints/ddpm-mnist --data test.parquet --method bound
"""


class Method(StrEnum):
    """The methods to find the likelihood."""

    ODE = "ode"
    BOUND = "bound"


def likelihood(
    checkpoint: Annotated[
        Path,
        Argument(
            metavar="CHECKPOINT",
            help="Folder of a checkpoint, or of a run, whose newest checkpoint is taken.",
        ),
    ],
    data: Annotated[str, Option(metavar="SOURCE", help=f"Data to measure: {options.SOURCES}.")],
    split: Annotated[
        str, Option(metavar="NAME", help="Split of the data, if it has several.")
    ] = "test",
    method: Annotated[
        Method,
        Option(
            help="ode: the probability-flow ODE, for any model; bound: a DDPM's variational bound."
        ),
    ] = Method.ODE,
    n: Annotated[
        int, Option("-n", "--n", metavar="COUNT", help="Number of samples, from the first on.")
    ] = 32,
    seed: Annotated[
        int, Option(metavar="SEED", help="Seed of all noise and of a toy's points, 0 to 2^64-1.")
    ] = 0,
    steps: Annotated[
        int | None,
        Option(
            metavar="COUNT",
            help="For ode: Runge-Kutta steps, each with 4 evaluations; 50 by default.",
        ),
    ] = None,
    probes: Annotated[
        int | None,
        Option(
            metavar="COUNT",
            help="For ode: random directions to estimate the divergence from; 0 computes it "
            "exactly. 1 by default, and 0 for points.",
        ),
    ] = None,
    max_batch: Annotated[
        int, Option(metavar="COUNT", help="Samples in a batch; the results do not depend on it.")
    ] = 32,
    raw: options.Raw = False,
    json: options.Json = False,
) -> None:
    """Measure the negative log likelihood of data under a model.

    The unit is bits per dimension for images, and nats per sample for points; less is better. The
    standard error tells how far the mean of all data may be from the mean of these n samples.
    """
    from dataclasses import asdict

    from difftool.train import measure_likelihood

    with progress(quiet=json) as tell:
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
