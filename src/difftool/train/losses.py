"""Training losses: pure functions of (network, x0, levels, noise).

`Network` here is any function of x [N, *S] and cond [N] that returns the raw output F, and noisy
samples are x = alpha * x0 + sigma * noise throughout. Every loss returns one number a sample, [N].
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from difftool.diffusion.spec import ModelSpec

Network = Callable[[Tensor, Tensor], Tensor]


class Levels(NamedTuple):
    """A spec's numbers per noise level, float32 [L] each; index 0 is the least noise.

    The target of the raw output is F* = from_x0 * x0 + from_noise * noise, and the error of the
    score is sigma * (score - score*) = gain * (F - F*).
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
        """The rows of `levels` int64 [N], shaped [N, 1, ...] to broadcast over samples."""
        shape = (-1,) + (1,) * (dimensions - 1)
        rows = Levels(*(column[levels].view(shape) for column in self))
        return rows._replace(cond=rows.cond.flatten())


def levels_of(spec: ModelSpec, device: torch.device | str = "cpu") -> Levels:
    """All levels of a spec, computed in float64 from D = c_skip * x + c_out * F = x0."""
    index = np.arange(len(spec.schedule))
    alpha, sigma = spec.schedule.alpha, spec.schedule.sigma
    c_in, c_skip, c_out = spec.coefficients_of(index)
    columns = (
        alpha,
        sigma,
        spec.cond_of(index),
        c_in,
        c_skip,
        c_out,
        (1 - c_skip * alpha) / c_out,
        -c_skip * sigma / c_out,
        alpha * c_out / sigma,
    )
    return Levels(*(torch.tensor(column, dtype=torch.float32, device=device) for column in columns))


def simple(network: Network, x0: Tensor, levels: Tensor, noise: Tensor, table: Levels) -> Tensor:
    """L_simple (Ho et al. 2020, eq. 14), for any parameterization: mean square of F - F*; [N]."""
    row, x = _perturb(x0, levels, noise, table)
    return _mean((network(row.c_in * x, row.cond) - _target(row, x0, noise)) ** 2)


def denoising(network: Network, x0: Tensor, levels: Tensor, noise: Tensor, table: Levels) -> Tensor:
    """Denoising score matching weighted by sigma^2 (Song and Ermon 2019, eqs. 5 and 6); [N].

    sigma^2 / 2 * |score(x, sigma) - (alpha * x0 - x) / sigma^2|^2. Over several levels this is NCSN's
    annealed loss; of one level it is that of Vincent (2011).
    """
    row, x = _perturb(x0, levels, noise, table)
    error = row.gain * (network(row.c_in * x, row.cond) - _target(row, x0, noise))
    return 0.5 * _sum(error**2)


def _perturb(x0: Tensor, levels: Tensor, noise: Tensor, table: Levels) -> tuple[Levels, Tensor]:
    row = table.at(levels, x0.ndim)
    return row, row.alpha * x0 + row.sigma * noise


def _target(row: Levels, x0: Tensor, noise: Tensor) -> Tensor:
    return row.from_x0 * x0 + row.from_noise * noise


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)


def _sum(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)
