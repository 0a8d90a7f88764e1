"""A mixture of Gaussians in the plane: its points, its exact network, and one that can learn it."""

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from difftool.diffusion.spec import ModelSpec

CENTERS = np.array([(2.0, 0.0), (-2.0, 0.0), (0.0, 2.0), (0.0, -2.0)])
SPREAD = 0.4


def points(count: int, seed: int) -> NDArray[np.float32]:
    """Draw equally many points from each Gaussian; float32 [count, 2]."""
    noise = np.random.default_rng(seed).normal(size=(count, 2))
    return (CENTERS[np.arange(count) % len(CENTERS)] + SPREAD * noise).astype(np.float32)


def denoised(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return the posterior mean of x0; x is [N, 2], alpha and sigma are [N, 1]."""
    centers = torch.from_numpy(CENTERS).to(x.dtype)
    variance = (alpha * SPREAD) ** 2 + sigma**2
    distance = (x[:, None] - alpha[:, :, None] * centers).square().sum(-1)
    mean = torch.softmax(-distance / (2 * variance), dim=1) @ centers
    return mean + alpha * SPREAD**2 / variance * (x - alpha * mean)


class Exact(nn.Module):
    """The network whose D is `denoised`, for a spec of timesteps."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        index = np.arange(len(spec.schedule))
        columns = (spec.schedule.alpha, spec.schedule.sigma, *spec.coefficients(index))
        levels = torch.tensor(np.stack(columns, 1), dtype=torch.float32)
        self.levels = nn.Parameter(levels, requires_grad=False)

    def condition(self, cond: Tensor) -> Tensor:
        return self.levels[cond.long()]

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        alpha, sigma, c_in, c_skip, c_out = c.split(1, dim=1)
        x = x / c_in
        return (denoised(x, alpha, sigma) - c_skip * x) / c_out


class Learner(nn.Module):
    """A small network of x and of features of half_log_snr, for a spec of timesteps."""

    def __init__(self, spec: ModelSpec, width: int = 96) -> None:
        super().__init__()
        log = torch.tensor(spec.schedule.half_log_snr, dtype=torch.float32)[:, None]
        rates = torch.tensor([0.5, 1.0])
        self.features = torch.cat([log / 4, (rates * log).sin(), (rates * log).cos()], 1)
        sizes = [2 + self.features.shape[1], width, width, width]
        layers = [(nn.Linear(a, b), nn.SiLU()) for a, b in pairwise(sizes)]
        self.layers = nn.Sequential(*(each for pair in layers for each in pair))
        self.out = nn.Linear(width, 2)

    def condition(self, cond: Tensor) -> Tensor:
        return self.features[cond.long()]

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        output: Tensor = self.out(self.layers(torch.cat([x, c], 1)))
        return output
