"""The variational bound against a transcription of DDPM's and improved-diffusion's formulas."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from difftool.diffusion import noise as philox
from difftool.diffusion.schedules import geometric, linear
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.train import losses, variational

STEPS = 6
BETAS = np.linspace(1e-4, 0.4, STEPS)


def make_spec(parameterization: str = "epsilon", *, learned: bool = False) -> ModelSpec:
    return ModelSpec(
        shape=(1, 2, 2),
        schedule=linear(steps=STEPS, beta_end=0.4),
        parameterization=parameterization,
        cond="timestep",
        data_range=(-1.0, 1.0),
        learned_variance=learned,
    )


def posterior_rows(spec: ModelSpec, levels: Tensor) -> tuple[losses.Levels, variational.Posterior]:
    tables = losses.level_table(spec), variational.posterior_table(spec)
    row, posterior = (table.at(levels, 4) for table in tables)
    return row, posterior


def images(count: int = 5) -> Tensor:
    grey = torch.randint(0, 256, (count, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    grey[0, 0, 0] = torch.tensor([0, 255])
    return grey / 255 * 2 - 1


def network(x: Tensor, cond: Tensor) -> Tensor:
    """A poor guess of the noise, and of how to interpolate the variance."""
    output = 0.9 * x + 0.02 * cond.view(-1, 1, 1, 1)
    return torch.cat((output, torch.tanh(x)), 1)


def cdf(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def nats(x0: float, noise: float, t: int, kind: str, *, clip: bool) -> float:
    """The cost in nats of one number x0 under this noise, at 0-based step t, by the betas alone."""
    alpha_bar = np.cumprod(1 - BETAS)
    x = math.sqrt(alpha_bar[t]) * x0 + math.sqrt(1 - alpha_bar[t]) * noise
    output, v = 0.9 * x + 0.02 * t, math.tanh(x)  # of `network`
    before = np.append(1.0, alpha_bar[:-1])
    tilde = BETAS * (1 - before) / (1 - alpha_bar)
    tilde[0] = tilde[1]
    first = math.sqrt(before[t]) * BETAS[t] / (1 - alpha_bar[t])
    second = math.sqrt(1 - BETAS[t]) * (1 - before[t]) / (1 - alpha_bar[t])
    guess = (x - math.sqrt(1 - alpha_bar[t]) * output) / math.sqrt(alpha_bar[t])
    guess = min(1, max(-1, guess)) if clip else guess
    fraction = {"small": 0.0, "large": 1.0, "learned": (v + 1) / 2}[kind]
    logvar = fraction * math.log(BETAS[t]) + (1 - fraction) * math.log(tilde[t])
    mean, true_mean = first * guess + second * x, first * x0 + second * x
    if t > 0:
        ratio = tilde[t] / math.exp(logvar)
        gap = (true_mean - mean) ** 2 / math.exp(logvar)
        return 0.5 * (-1 - math.log(ratio) + ratio + gap)
    std = math.exp(0.5 * logvar)
    above = 1.0 if x0 > 0.999 else cdf((x0 + 1 / 255 - mean) / std)
    below = 0.0 if x0 < -0.999 else cdf((x0 - 1 / 255 - mean) / std)
    return -math.log(max(above - below, 1e-12))


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_bits_per_dim_is_the_plain_loop(variance: str) -> None:
    x0, learned = images(), variance == "learned"
    left = np.prod(1 - BETAS)  # of alpha_bar at the end
    expected = np.zeros(len(x0))
    for n, image in enumerate(x0.flatten(1).tolist()):
        for t in range(STEPS):
            drawn = philox.normal(4, t, [n], (4,))[0].tolist()
            for x_start, z in zip(image, drawn, strict=True):
                expected[n] += nats(x_start, z, t, variance, clip=True)
        for x_start in image:
            expected[n] += 0.5 * (left * x_start**2 - left - math.log(1 - left))
    expected /= 4 * math.log(2)

    def evaluated(x: Tensor, cond: Tensor) -> Tensor:
        return network(x, cond) if learned else network(x, cond).chunk(2, 1)[0]

    actual = variational.bits_per_dim(
        evaluated, x0, make_spec(learned=learned), variance=variance, seed=4
    )
    np.testing.assert_allclose(actual, expected, rtol=2e-4)


def test_a_perfect_network_pays_for_the_data_and_the_prior_only() -> None:
    x0, spec = images(), make_spec("x0")
    bits = variational.bits_per_dim(lambda x, cond: x0, x0, spec)
    tilde = BETAS[1] * BETAS[0] / (1 - (1 - BETAS[0]) * (1 - BETAS[1]))
    half = 1 / 255 / math.sqrt(tilde)
    mass = np.where(np.abs(x0.numpy()) > 0.999, cdf(half), 2 * cdf(half) - 1)
    rest = np.prod(1 - BETAS)
    prior = 0.5 * (rest * x0.numpy() ** 2 - rest - math.log(1 - rest))
    expected = (prior - np.log(mass)).mean(axis=(1, 2, 3)) / math.log(2)
    np.testing.assert_allclose(bits, expected, rtol=1e-3)


def test_hybrid_is_simple_and_the_bound() -> None:
    x0, spec = images(STEPS), make_spec(learned=True)
    levels = torch.arange(STEPS)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    row, posterior = posterior_rows(spec, levels)
    actual = variational.hybrid(network, x0, noise, row, levels, posterior, spec, 0.5)
    simple = losses.simple(lambda x, cond: network(x, cond).chunk(2, 1)[0], x0, noise, row)
    for t in range(STEPS):
        pairs = zip(x0[t].flatten().tolist(), noise[t].flatten().tolist(), strict=True)
        cost = sum(nats(x_start, z, t, "learned", clip=False) for x_start, z in pairs)
        expected = simple[t].item() + 0.5 * STEPS * cost / 4 / math.log(2)
        assert actual[t].item() == pytest.approx(expected, rel=1e-3)


def test_the_bound_trains_the_variance_alone() -> None:
    x0, spec = images(STEPS), make_spec(learned=True)
    output = torch.zeros_like(x0).requires_grad_()
    v = torch.zeros_like(x0).requires_grad_()
    levels, noise = torch.arange(STEPS), torch.ones_like(x0)
    row, posterior = posterior_rows(spec, levels)

    def both(x: Tensor, cond: Tensor) -> Tensor:
        return torch.cat((output, v), 1)

    variational.hybrid(both, x0, noise, row, levels, posterior, spec, 1.0).sum().backward()
    assert (v.grad.flatten(1).norm(dim=1) > 0).all()
    simple = losses.simple(lambda x, cond: output, x0, noise, row)
    (expected,) = torch.autograd.grad(simple.sum(), output)
    torch.testing.assert_close(output.grad, expected)


def test_what_the_bound_is_not_defined_for() -> None:
    exploding = ModelSpec(
        shape=(2,),
        schedule=geometric(levels=4, sigma_min=0.1, sigma_max=1.0),
        parameterization="score",
        cond="level",
    )
    for spec, variance, message in (
        (make_spec(), "learned", "no learned variance"),
        (make_spec(), "tiny", "unknown variance 'tiny'"),
        (exploding, "small", "variance-preserving"),
    ):
        with pytest.raises(UsageError, match=message):
            variational.bits_per_dim(network, images(), spec, variance=variance)
