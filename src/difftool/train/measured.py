"""Measure the negative log likelihood of data under a checkpoint's model."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difftool import data as datasets
from difftool.errors import CheckFailed, UsageError, quoted
from difftool.networks.trained import Checkpoint, load_checkpoint
from difftool.train import likelihood as flow
from difftool.train import variational

_FEW: Final = 8  # dimensions for which the exact trace costs little

Method = Literal["ode", "bound"]


@dataclass(frozen=True)
class Likelihood:
    """The mean negative log likelihood of n samples.

    - `negative_log_likelihood`, `standard_error`: in `unit`, "bits/dim" of images or "nats/sample"
      of points; a single sample has no standard error
    - `steps`, `settings`: the steps of the method and its settings, `probes` or `variance`
    - `checkpoint`, `weights`: the measured model; the weights are "ema" or "raw"
    """

    negative_log_likelihood: float
    standard_error: float | None
    unit: str
    n: int
    seed: int
    method: Method
    steps: int
    settings: Mapping[str, Any]
    checkpoint: Path
    weights: str


def measure_likelihood(
    checkpoint: Path | str,
    data: str,
    *,
    split: str = "test",
    method: Method = "ode",
    n: int = 32,
    seed: int = 0,
    steps: int | None = None,
    probes: int | None = None,
    max_batch: int = 32,
    ema: bool = True,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Likelihood:
    """Measure the negative log likelihood of the first n samples of data under a model.

    Args:
        checkpoint: a checkpoint, or a run, whose newest checkpoint is taken.
        data: a source as for `difftool.data.load`; `split` is read, if it has several.
        method: "ode" integrates the probability-flow ODE (Song et al. 2021b, section 4.3);
            "bound" is the variational bound of a DDPM (Ho et al. 2020, eq. 5).
        n: how many samples.
        seed: fixes all noise, and the points of a toy.
        steps: steps of Runge and Kutta's method, 4 evaluations each; 50 by default. Only for "ode".
        probes: random directions that estimate the divergence (Hutchinson); 0 takes all dimensions
            and is exact. The default is 1, and 0 for points. Only for "ode".
        max_batch: samples that run together; the result does not depend on it.
        ema: measure the moving average of the weights; False measures the last weights.
        on_step: called with the number of steps done, and of all steps.

    Raises:
        UsageError: a setting has no meaning, or data and model do not fit.
        CheckFailed: a likelihood is not finite.

    Examples:
        >>> found = difftool.train.measure_likelihood("runs/digits", "digits", n=4, steps=2)
        >>> found.n, found.unit
        (4, 'bits/dim')
    """
    if method == "bound" and (steps, probes) != (None, None):
        raise UsageError(
            "`steps` and `probes` are only for `method=ode`",
            "leave them out; the bound takes every level once",
        )
    if n < 1 or max_batch < 1:
        raise UsageError(f"{n} samples in batches of {max_batch}", "both start at 1")
    loaded = load_checkpoint(checkpoint, ema=ema)
    spec, items = loaded.spec, _items(loaded, data, split, n, seed)
    images = items.dtype == np.uint8
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings: dict[str, Any]
    if method == "bound":
        steps = len(spec.schedule)
        settings = {"variance": _variance(loaded)}
    else:
        steps = flow.STEPS if steps is None else steps
        usual = 0 if items[0].size <= _FEW else 1
        settings = {"steps": steps, "probes": usual if probes is None else probes}
    network = flow.without_label(loaded.network.to(device), spec)
    total, done = max(steps, 1) * -(-n // max_batch), itertools.count(1)

    def measured(first: int) -> Tensor:
        """Return the costs of a batch, in `unit`."""
        batch = items[first : first + max_batch]
        options: dict[str, Any] = {
            **settings,
            "seed": seed,
            "samples": np.arange(first, first + len(batch)),
            "on_step": lambda: on_step(next(done), total),
        }
        if method == "bound":
            x0 = torch.from_numpy(datasets.prepared(batch, spec.data_range)).to(device)
            return variational.bits_per_dim(network, x0, spec, **options)
        values = torch.from_numpy(batch).to(device)
        if images:
            return flow.bits_per_dim(network, values, spec, **options)
        return -flow.log_likelihood(network, values, spec, **options)

    costs = torch.cat([measured(first).double().cpu() for first in range(0, n, max_batch)])
    if broken := int((~costs.isfinite()).sum()):
        raise CheckFailed(
            f"{broken} of {n} likelihoods are not finite", "take more `steps`, or train longer"
        )
    return Likelihood(
        negative_log_likelihood=float(costs.mean()),
        standard_error=float(costs.std() / n**0.5) if n > 1 else None,
        unit="bits/dim" if images else "nats/sample",
        n=n,
        seed=seed,
        method=method,
        steps=steps,
        settings=settings,
        checkpoint=loaded.path,
        weights=loaded.weights,
    )


def _items(loaded: Checkpoint, source: str, split: str, n: int, seed: int) -> NDArray[Any]:
    """Return the first n items of the data, prepared as for training; they must fit the model."""
    trained = (loaded.config["training"] or {}).get("data", {})
    fitted = {key: trained[key] for key in ("column", "size", "mode") if key in trained}
    found = datasets.load(source, split=split, count=n, seed=seed, **fitted).values[:n]
    if found.shape[1:] != loaded.spec.shape:
        raise UsageError(
            f"{quoted(source)} has samples of shape {found.shape[1:]}, "
            f"the model of {loaded.spec.shape}",
            "give data of the kind that it was trained on",
        )
    if len(found) < n:
        raise UsageError(f"{quoted(source)} has {len(found)} samples, not {n}", "lower `n`")
    return found


def _variance(loaded: Checkpoint) -> str:
    """Return the variance that the model samples with."""
    if loaded.spec.learned_variance:
        return "learned"
    sampler = loaded.sampler
    chosen = sampler.arguments.get("variance") if sampler.name == "ddpm" else None
    return chosen or "small"
