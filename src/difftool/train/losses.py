"""Training losses: pure functions of (network, x0, noise, row) to one number a sample.

`Network` is any function of x [N, *S] and cond [N] that returns the raw output F; x0 and noise are
[N, *S], `row` has the numbers of each sample's level, and losses are [N]. A noisy sample is
x = alpha * x0 + sigma * noise.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError

Network = Callable[[Tensor, Tensor], Tensor]


class Levels(NamedTuple):
    """The numbers of a spec's noise levels, float32 [L] each; index 0 has the least noise.

    D = c_skip * x + c_out * network(c_in * x, cond). F* = from_x0 * x0 + from_noise * noise is the
    output that makes D = x0, and gain * (F - F*) = sigma * (score - target score).
    """

    alpha: Tensor
    sigma: Tensor
    cond: Tensor
    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor
    from_x0: Tensor
    from_noise: Tensor
    gain: Tensor

    def at(self, levels: Tensor, dimensions: int) -> "Levels":
        """Return the rows of `levels` [N], shaped [N, 1, ...] for samples of `dimensions` axes."""
        shape = (-1,) + (1,) * (dimensions - 1)
        rows = Levels(*(column[levels].view(shape) for column in self))
        return rows._replace(cond=rows.cond.flatten())


def level_table(spec: ModelSpec, device: torch.device | str = "cpu") -> Levels:
    """Compute all levels of a spec in float64; UsageError if float32 cannot hold them."""
    index = np.arange(len(spec.schedule))
    alpha, sigma = spec.schedule.alpha, spec.schedule.sigma
    with np.errstate(all="ignore"):
        c_in, c_skip, c_out = spec.coefficients(index)
        from_x0, from_noise = (1 - c_skip * alpha) / c_out, -c_skip * sigma / c_out
        gain = alpha * c_out / sigma
    cond = spec.conds(index)
    columns = (alpha, sigma, cond, c_in, c_skip, c_out, from_x0, from_noise, gain)
    if not (np.abs(columns) <= np.finfo(np.float32).max).all():  # also False for NaN
        raise UsageError(
            f"the numbers of {spec.schedule} and {spec.parameterization} are beyond float32",
            "give the schedule numbers nearer to 1",
        )
    return Levels(*(torch.tensor(column, dtype=torch.float32, device=device) for column in columns))


def simple(network: Network, x0: Tensor, noise: Tensor, row: Levels) -> Tensor:
    """Return L_simple, the mean square of F - F* (Ho et al. 2020, eq. 14).

    The paper's networks predict epsilon; here it works for any parameterization.
    """
    return _output_error(network, x0, noise, row).square().flatten(1).mean(1)


def min_snr(row: Levels, most: float) -> Tensor:
    """Return weights [N] of the simple loss that weigh errors of D by min(SNR, most).

    This is Min-SNR (Hang et al. 2023, sec. 3.4) for any parameterization. SNR is (alpha / sigma)^2.
    """
    return (row.c_out.square() * (row.alpha / row.sigma).square().clamp(max=most)).flatten()


def denoising(network: Network, x0: Tensor, noise: Tensor, row: Levels) -> Tensor:
    """Return the loss of denoising score matching times sigma^2 (Song and Ermon 2019, eqs. 5, 6).

    It is sigma^2 / 2 * |score(x, sigma) - (alpha * x0 - x) / sigma^2|^2. Over several levels this
    is NCSN's annealed loss; over one level it is Vincent's (2011).
    """
    return 0.5 * _sum((row.gain * _output_error(network, x0, noise, row)).square())


def implicit(network: Network, x0: Tensor, noise: Tensor, row: Levels) -> Tensor:
    """Return the loss of implicit score matching (Hyvarinen 2005) times sigma^2.

    It is sigma^2 * (tr(grad score) + |score|^2 / 2) at noisy samples. The exact trace takes one
    backward pass for each dimension, so it is for points and not for images.
    """
    x = perturb(x0, noise, row).requires_grad_()
    score = _score(network, x, row)
    trace = torch.zeros(len(x), device=x.device)
    for i in range(x[0].numel()):
        slope = _gradient(score.flatten(1)[:, i].sum(), x)
        trace = trace + slope.flatten(1)[:, i]
    return row.sigma.flatten() ** 2 * (trace + 0.5 * _sum(score.square()))


def sliced(network: Network, x0: Tensor, noise: Tensor, row: Levels, directions: Tensor) -> Tensor:
    """Return the loss of sliced score matching, variance reduced, times sigma^2.

    It is sigma^2 * (v^T grad(score) v + |score|^2 / 2) at noisy samples, for directions v [N, *S]
    (Song et al. 2019, eq. 8). Its mean over v ~ N(0, I) is the implicit loss.
    """
    x = perturb(x0, noise, row).requires_grad_()
    score = _score(network, x, row)
    curvature = _sum(_gradient((score * directions).sum(), x) * directions)
    return row.sigma.flatten() ** 2 * (curvature + 0.5 * _sum(score.square()))


def perturb(x0: Tensor, noise: Tensor, row: Levels) -> Tensor:
    """Return x = alpha * x0 + sigma * noise."""
    return row.alpha * x0 + row.sigma * noise


def target(x0: Tensor, noise: Tensor, row: Levels) -> Tensor:
    """Return F*, the raw output that makes D = x0."""
    return row.from_x0 * x0 + row.from_noise * noise


def _output_error(network: Network, x0: Tensor, noise: Tensor, row: Levels) -> Tensor:
    """Return F - F*."""
    output = network(row.c_in * perturb(x0, noise, row), row.cond)
    return output - target(x0, noise, row)


def _score(network: Network, x: Tensor, row: Levels) -> Tensor:
    """Return the network's score at x, (alpha * D - x) / sigma^2."""
    denoised = row.c_skip * x + row.c_out * network(row.c_in * x, row.cond)
    return (row.alpha * denoised - x) / row.sigma**2


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    return gradient


def _sum(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)
