"""DDPM's chain on a mixture of two Gaussians on the line, where every distribution has a formula.

Equation numbers are those of Ho et al. (2020). A level is a pair (alpha, sigma); the data are at
the level (1, 0). A step goes from a level, `source`, to one of less noise, `target`.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.diffusion import ModelSpec, Program, schedules, visited
from difftool.runtime import Draws, Reference, run, start_noise

Array = NDArray[np.float64]
Level = tuple[float, float]

_NODES = 48  # of each quadrature, for each Gaussian


class Mixture(NamedTuple):
    """A mixture of K Gaussians: weights [..., K], means [..., K] and standard deviations [K]."""

    weights: Array
    means: Array
    stds: Array

    def log_density(self, x: ArrayLike) -> Array:
        """Return the log density at x, which has the shape of the leading axes, [...]."""
        z = (np.asarray(x)[..., None] - self.means) / self.stds
        parts = np.log(self.weights) - np.log(self.stds * np.sqrt(2 * np.pi)) - z**2 / 2
        return np.logaddexp.reduce(parts, axis=-1)

    def moments(self) -> tuple[Array, Array]:
        """Return mean and variance, [...] each."""
        mean = (self.weights * self.means).sum(-1)
        square = (self.weights * (self.stds**2 + self.means**2)).sum(-1)
        return mean, square - mean**2


# Mean 0 and variance 1, so that no noise of a variance-preserving schedule changes either.
DATA = Mixture(np.array([0.4, 0.6]), np.array([-1.2, 0.8]), np.array([0.2, 0.2]))
SPEC = ModelSpec(
    shape=(1,), schedule=schedules.linear(), parameterization="epsilon", cond="timestep"
)


def level_at(index: float | None) -> Level:
    """Return (alpha, sigma) at an index of the schedule; None is the data."""
    if index is None:
        return 1.0, 0.0
    alpha, sigma = SPEC.schedule.at(index)
    return float(alpha), float(sigma)


def forward(data: Mixture, level: Level) -> Mixture:
    """Return q(x_t) of data at a level, by q(x_t | x_0) = N(alpha x_0, sigma^2) (eq. 4)."""
    alpha, sigma = level
    return Mixture(data.weights, alpha * data.means, np.hypot(alpha * data.stds, sigma))


def composed(betas: Array) -> tuple[Array, Array]:
    """Return alpha and sigma after each step x' = sqrt(1 - beta) x + sqrt(beta) z (eq. 2), [T]."""
    scale, variance, found = 1.0, 0.0, []
    for beta in betas:
        scale *= np.sqrt(1 - beta)
        variance = (1 - beta) * variance + beta
        found.append((scale, np.sqrt(variance)))
    alpha, sigma = np.array(found).T
    return alpha, sigma


def kernel(source: Level, target: Level) -> tuple[float, float]:
    """Return (scale, beta) of the noising step q(x_source | x_target) = N(scale x, beta)."""
    scale = source[0] / target[0]
    return scale, source[1] ** 2 - (scale * target[1]) ** 2


def posterior(source: Level, target: Level) -> tuple[float, float, float]:
    """Return (a, b, variance) of q(x_target | x_source, x_0) = N(a x + b x_0, variance), eq. 7."""
    scale, beta = kernel(source, target)
    a = scale * target[1] ** 2 / source[1] ** 2
    b = target[0] * beta / source[1] ** 2
    return a, b, beta * target[1] ** 2 / source[1] ** 2


def reverse(data: Mixture, x: ArrayLike, source: Level, target: Level) -> Mixture:
    """Return the exact p(x_target | x_source = x) for x [...]; each Gaussian follows Bayes."""
    scale, beta = kernel(source, target)
    at_target, at_source = forward(data, target), forward(data, source)
    z = (np.asarray(x)[..., None] - at_source.means) / at_source.stds
    logs = np.log(data.weights) - np.log(at_source.stds) - z**2 / 2
    weights = np.exp(logs - np.logaddexp.reduce(logs, axis=-1)[..., None])
    variance = 1 / (1 / at_target.stds**2 + scale**2 / beta)
    pull = at_target.means / at_target.stds**2 + scale * np.asarray(x)[..., None] / beta
    return Mixture(weights, variance * pull, np.sqrt(variance))


def lost(data: Mixture, steps: int) -> dict[str, float]:
    """Return the bits that Gaussian steps lose, in a chain of so many steps of SPEC's schedule.

    This is the sum over steps of KL(p(x_target | x_source) || N(mean, variance)), averaged over
    x_source, without the last step to the data. The mean is the exact one, which is DDPM's if its
    network is perfect. The variance is the exact one ("best") or one of DDPM's two.
    """
    nodes, quadrature = np.polynomial.hermite_e.hermegauss(_NODES)
    quadrature = quadrature / quadrature.sum()
    total = dict.fromkeys(("best", "small", "large"), 0.0)
    indices = visited(SPEC.schedule, steps)
    for first, second in pairwise(indices):
        source, target = level_at(first), level_at(second)
        noisy = forward(data, source)
        x = noisy.means[:, None] + noisy.stds[:, None] * nodes  # [K, nodes]
        chances = data.weights[:, None] * quadrature
        exact = reverse(data, x, source, target)
        _, variance = exact.moments()
        inner = exact.means[..., None] + exact.stds[:, None] * nodes  # [K, nodes, K, nodes]
        shares = exact.weights[..., None] * quadrature
        spread = Mixture(
            exact.weights[..., None, None, :], exact.means[..., None, None, :], exact.stds
        )
        minus_entropy = (shares * spread.log_density(inner)).sum((-2, -1))
        fixed = {"small": posterior(source, target)[2], "large": kernel(source, target)[1]}
        for name in total:
            chosen = fixed.get(name, variance)
            cross = np.log(2 * np.pi * chosen) / 2 + variance / (2 * chosen)
            total[name] += float((chances * (minus_entropy + cross)).sum() / np.log(2))
    return total


def true_epsilon(x: Array, cond: Array) -> Array:
    """Return the noise that a perfect network predicts, E[noise | x], for x [N, 1] at cond [N]."""
    alpha, sigma = level_at(float(cond[0]))
    noisy = forward(DATA, (alpha, sigma))
    z = (x - noisy.means) / noisy.stds  # [N, K]
    logs = np.log(noisy.weights) - np.log(noisy.stds) - z**2 / 2
    weights = np.exp(logs - np.logaddexp.reduce(logs, axis=-1)[:, None])
    return sigma * (weights * z / noisy.stds).sum(-1, keepdims=True)  # -sigma * score


def sampled(program: Program, count: int) -> Array:
    """Return `count` samples [N] of a program on the perfect network, in float64."""
    batch = Reference(true_epsilon, (1,)).batch(program, count)
    draws = Draws(0, np.arange(count), (1,))
    states = start_noise(program, draws)
    for _ in run(batch, program, draws):
        states = batch.x
    return states[:, 0].copy()


def distance(samples: Array, data: Mixture) -> float:
    """Return the 1-Wasserstein distance of samples [N] from a mixture, by its quantiles."""
    grid = np.linspace(-4, 4, 8001)
    below = np.cumsum(np.exp(data.log_density(grid)))
    shares = (np.arange(len(samples)) + 0.5) / len(samples)
    return float(np.abs(np.sort(samples) - np.interp(shares, below / below[-1], grid)).mean())
