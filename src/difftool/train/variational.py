"""The variational bound of DDPM, which trains learned variances and measures likelihoods.

The bound is a sum over levels (Ho et al. 2020, eq. 5). Level i > 0 costs the divergence of
p(x_{i-1} | x_i) from the posterior q(x_{i-1} | x_i, x0). Level 0 costs the code of the data, in 256
grey levels. The noisiest level also costs its divergence from the prior N(0, I).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difftool.diffusion import noise as philox
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError, quoted
from difftool.train.losses import Levels, Network, level_table, perturb, target

VARIANCES = ("small", "large", "learned")
_BITS = 1 / math.log(2)


class Posterior(NamedTuple):
    """The posteriors q(x_{i-1} | x_i, x0) = N(from_x * x + from_x0 * x0, exp(small)).

    Each field is float32 [L]. `small` and `large` are bounds of p's log variance: the posterior's,
    and the forward step's (Ho et al. 2020, section 3.2). The posterior of level 0 is a point, so
    `small` has there the value of level 1, as in improved-diffusion.
    """

    from_x: Tensor
    from_x0: Tensor
    small: Tensor
    large: Tensor

    def at(self, levels: Tensor, dimensions: int) -> "Posterior":
        """Return the rows of `levels` [N], shaped [N, 1, ...] for samples of `dimensions` axes."""
        shape = (-1,) + (1,) * (dimensions - 1)
        return Posterior(*(column[levels].view(shape) for column in self))


def posterior_table(spec: ModelSpec, device: torch.device | str = "cpu") -> Posterior:
    """Compute the posteriors of all levels in float64; level 0 leads to the data, (1, 0).

    UsageError if the spec is not a DDPM of 8-bit data; for others the bound is not defined here.
    """
    schedule = spec.schedule
    if not (schedule.variance_preserving and spec.data_range and len(schedule) > 1):
        raise UsageError(
            "the variational bound needs a variance-preserving model of images",
            "train with method ddpm on images, use another loss, or measure with the ODE",
        )
    alpha, sigma = schedule.alpha, schedule.sigma
    alpha_to, sigma_to = np.append(1.0, alpha[:-1]), np.append(0.0, sigma[:-1])
    ratio = alpha / alpha_to
    forward = sigma**2 - ratio**2 * sigma_to**2
    variance = forward * sigma_to**2 / sigma**2
    variance[0] = variance[1]
    columns = (
        ratio * sigma_to**2 / sigma**2,
        alpha_to * forward / sigma**2,
        np.log(variance),
        np.log(forward),
    )
    return Posterior(
        *(torch.tensor(column, dtype=torch.float32, device=device) for column in columns)
    )


def hybrid(
    network: Network,
    x0: Tensor,
    noise: Tensor,
    row: Levels,
    levels: Tensor,
    posterior: Posterior,
    spec: ModelSpec,
    vlb_weight: float,
) -> Tensor:
    """Return L_hybrid = L_simple + vlb_weight * L_vlb (Nichol and Dhariwal 2021, eq. 16); [N].

    The network returns [F, v] on twice the channels; v interpolates the log variance (eq. 15). The
    bound sees F as a constant, so it trains v alone. L_vlb is in bits per dimension, and its sum
    over levels is estimated by L times the term of the drawn level. `row` and `posterior` are those
    of `levels` [N].
    """
    x = perturb(x0, noise, row)
    output, v = network(row.c_in * x, row.cond).chunk(2, 1)
    simple = (output - target(x0, noise, row)).square().flatten(1).mean(1)
    denoised = row.c_skip * x + row.c_out * output.detach()
    cost = _cost(x0, x, denoised, _interpolate(posterior, v), posterior, levels, spec)
    return simple + vlb_weight * len(spec.schedule) * cost


@torch.inference_mode()
def bits_per_dim(
    network: Network,
    x0: Tensor,
    spec: ModelSpec,
    *,
    variance: str = "small",
    seed: int = 0,
    samples: NDArray[np.int64] | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """Return the variational bound of data x0 [N, *S], in bits per dimension; [N].

    Each level is evaluated once, with draw i of `seed` for level i, and D is clipped to the data
    range. `variance` is "small", "large" or "learned". `samples` [N] are the samples' numbers,
    0 .. N - 1 by default: equal seed and number give equal noise in any batch.

    Raises:
        UsageError: the variance is unknown, or the bound is not defined for the model.
    """
    if variance not in VARIANCES:
        raise UsageError(f"unknown variance {quoted(variance)}", f"one of: {', '.join(VARIANCES)}")
    if variance == "learned" and not spec.learned_variance:
        raise UsageError("this model has no learned variance", "use variance small or large")
    table, posterior = level_table(spec, x0.device), posterior_table(spec, x0.device)
    indices = np.arange(len(x0)) if samples is None else samples
    total = _prior(x0, spec)
    for level in range(len(spec.schedule)):
        levels = torch.full((len(x0),), level, device=x0.device)
        row, step = table.at(levels, x0.ndim), posterior.at(levels, x0.ndim)
        noise = torch.from_numpy(philox.normal(seed, level, indices, spec.shape)).to(x0.device)
        x = perturb(x0, noise, row)
        output, *v = network(row.c_in * x, row.cond).chunk(2 if spec.learned_variance else 1, 1)
        denoised = (row.c_skip * x + row.c_out * output).clamp(*_range(spec))
        fixed = step.small if variance == "small" else step.large
        logvar = _interpolate(step, *v) if variance == "learned" else fixed
        total += _cost(x0, x, denoised, logvar, step, levels, spec)
        on_step()
    return total


def _cost(
    x0: Tensor,
    x: Tensor,
    denoised: Tensor,
    logvar: Tensor,
    step: Posterior,
    levels: Tensor,
    spec: ModelSpec,
) -> Tensor:
    """Return the costs of the levels, in bits per dimension; [N]."""
    mean = step.from_x * x + step.from_x0 * denoised
    true_mean = step.from_x * x + step.from_x0 * x0
    divergence = 0.5 * (
        logvar
        - step.small
        + torch.expm1(step.small - logvar)
        + (true_mean - mean).square() * torch.exp(-logvar)
    )
    first = (levels == 0).view(-1, *(1,) * (x0.ndim - 1))
    nats = torch.where(first, -_log_likelihood(x0, mean, logvar, spec), divergence)
    return nats.flatten(1).mean(1) * _BITS


def _log_likelihood(x0: Tensor, mean: Tensor, logvar: Tensor, spec: ModelSpec) -> Tensor:
    """Return the log mass of N(mean, exp(logvar)) on the grey level of x0 (Ho et al., eq. 13)."""
    low, high = _range(spec)
    half = (high - low) / 510  # half of a grey level
    scale = torch.exp(-0.5 * logvar)
    above = torch.special.ndtr(scale * (x0 + half - mean))
    below = torch.special.ndtr(scale * (x0 - half - mean))
    above = torch.where(x0 > high - half, torch.ones_like(above), above)
    below = torch.where(x0 < low + half, torch.zeros_like(below), below)
    return (above - below).clamp_min(1e-12).log()  # far off, both are 1 or 0 in float32


def _prior(x0: Tensor, spec: ModelSpec) -> Tensor:
    """Return the divergence of q(x_L | x0) from N(0, I), in bits per dimension; [N]."""
    alpha, variance = float(spec.schedule.alpha[-1]), float(spec.schedule.sigma[-1]) ** 2
    nats = 0.5 * ((alpha * x0).square() + variance - 1 - math.log(variance))
    return nats.flatten(1).mean(1) * _BITS


def _interpolate(step: Posterior, v: Tensor) -> Tensor:
    """Return the log variance for v: `small` at -1, `large` at 1 (Nichol and Dhariwal, eq. 15)."""
    fraction = (v + 1) / 2
    return fraction * step.large + (1 - fraction) * step.small


def _range(spec: ModelSpec) -> tuple[float, float]:
    assert spec.data_range is not None  # `posterior_table` has checked it
    return spec.data_range
