"""difftool likelihood: how well a checkpoint's model describes data."""

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from difftool.cli import options
from difftool.cli.console import progress, report
from difftool.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from difftool.networks.trained import Checkpoint

EXAMPLES = """\b
Examples:
  difftool likelihood runs/digits --data digits -n 16
  difftool likelihood checkpoints/ddpm-mnist --data ylecun/mnist --steps 100 --json
  difftool likelihood checkpoints/ddpm-mnist --data test.parquet --method bound
"""

_FEW = 8  # dimensions up to which the exact trace costs little


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
    if method is Method.BOUND and (steps, probes) != (None, None):
        raise UsageError(
            "--steps and --probes are of --method ode", "the bound takes every level once"
        )
    if n < 1 or max_batch < 1:
        raise UsageError(f"{n} samples in batches of {max_batch}", "both start at 1")

    from difftool.networks.trained import load_checkpoint
    from difftool.train.likelihood import STEPS

    loaded = load_checkpoint(checkpoint, ema=not raw)
    items = _items(loaded, data, split, n, seed)
    setting: dict[str, Any]
    if method is Method.BOUND:
        steps = len(loaded.spec.schedule)
        setting = {"variance": _variance(loaded)}
    else:
        steps = STEPS if steps is None else steps
        usual = 0 if len(items[0].flatten()) <= _FEW else 1
        setting = {"steps": steps, "probes": usual if probes is None else probes}
    with progress(max(steps, 1) * -(-n // max_batch), quiet=json) as advance:
        measure = partial(_measured(loaded, method), **setting, seed=seed, on_step=advance)
        costs = _in_batches(measure, items, max_batch)
    if broken := int((~costs.isfinite()).sum()):
        raise CheckFailed(
            f"{broken} of {n} likelihoods are not finite", "take more --steps, or train longer"
        )
    report(
        {
            "negative_log_likelihood": float(costs.mean()),
            "standard_error": float(costs.std() / n**0.5) if n > 1 else None,
            "unit": "nats/sample" if items.is_floating_point() else "bits/dim",
            "n": n,
            "seed": seed,
            "method": method.value,
            "steps": steps,
            **setting,
            "data": data,
            "checkpoint": str(loaded.path),
            "weights": loaded.weights,
        },
        as_json=json,
    )


def _items(loaded: "Checkpoint", source: str, split: str, n: int, seed: int) -> "Tensor":
    """The first n items of the data, prepared as for training, which must fit the model."""
    import torch

    from difftool import data

    trained = (loaded.config["training"] or {}).get("data", {})
    fitted = {key: trained[key] for key in ("column", "size", "mode") if key in trained}
    found = data.load(source, split=split, count=n, seed=seed, **fitted).values[:n]
    if found.shape[1:] != loaded.spec.shape:
        raise UsageError(
            f"{source!r} has samples of shape {found.shape[1:]}, the model of {loaded.spec.shape}",
            "give data of the kind that it was trained on",
        )
    if len(found) < n:
        raise UsageError(f"{source!r} has {len(found)} samples, not {n}", "lower -n")
    return torch.from_numpy(found)


def _variance(loaded: "Checkpoint") -> str:
    """The variance that the model samples with."""
    if loaded.spec.learned_variance:
        return "learned"
    sampler = loaded.sampler
    chosen = sampler.arguments.get("variance") if sampler.name == "ddpm" else None
    return chosen or "small"


def _measured(loaded: "Checkpoint", method: Method) -> "Callable[..., Tensor]":
    """What gives the negative log likelihood of every item of a batch, in its unit."""
    import torch

    from difftool.train import likelihood as flow
    from difftool.train import variational

    device = "cuda" if torch.cuda.is_available() else "cpu"
    spec, network = loaded.spec, flow.network_of(loaded.network.to(device), loaded.spec)

    def ode(items: torch.Tensor, **setting: Any) -> torch.Tensor:
        items = items.to(device)
        if items.is_floating_point():
            return -flow.log_likelihood(network, items, spec, **setting)
        return flow.bits_per_dim(network, items, spec, **setting)

    def bound(items: torch.Tensor, **setting: Any) -> torch.Tensor:
        low, high = spec.data_range or (0.0, 1.0)
        x0 = items.to(device) / 255 * (high - low) + low
        with torch.inference_mode():
            return variational.bits_per_dim(network, x0, spec, **setting)

    return bound if method is Method.BOUND else ode


def _in_batches(measure: "Callable[..., Tensor]", items: "Tensor", size: int) -> "Tensor":
    import numpy as np
    import torch

    costs = [
        measure(batch, samples=number * size + np.arange(len(batch))).double().cpu()
        for number, batch in enumerate(items.split(size))
    ]
    return torch.cat(costs)
