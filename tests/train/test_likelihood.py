"""The likelihood along the ODE against densities that are known exactly."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from difftool.diffusion import schedules
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.train import likelihood
from difftool.train.likelihood import log_likelihood
from tests.oracles.analytic import make_network

Array = NDArray[np.float64]


def make_spec(schedule: schedules.NoiseSchedule, parameterization: str, cond: str) -> ModelSpec:
    return ModelSpec(shape=(3,), schedule=schedule, parameterization=parameterization, cond=cond)


GEOMETRIC = schedules.geometric(levels=10, sigma_min=0.05, sigma_max=8.0)
SPECS = {
    "epsilon": make_spec(schedules.linear(), "epsilon", "timestep"),
    "v": make_spec(schedules.cosine(), "v", "timestep"),
    "x0": make_spec(schedules.linear(steps=50, beta_end=0.2), "x0", "timestep"),
    "edm": make_spec(GEOMETRIC, "edm", "quarter_log_sigma"),
    "score": make_spec(GEOMETRIC, "score", "quarter_log_sigma"),
}
# Levels so close that D, between them interpolated, is as good as known everywhere.
LABELLED = make_spec(
    schedules.geometric(levels=300, sigma_min=0.05, sigma_max=8.0), "score", "level"
)
# Ends in noise that shows nothing of the data.
TO_NOISE = {
    "VP": make_spec(schedules.linear(beta_end=0.05), "epsilon", "timestep"),
    "VE": make_spec(
        schedules.karras(levels=40, sigma_min=0.01, sigma_max=2000.0), "edm", "quarter_log_sigma"
    ),
}

MEAN = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
VARIANCES = torch.tensor([1.5, 0.2, 0.01], dtype=torch.float64)
_basis = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
BASIS = torch.from_numpy(_basis)  # columns are the covariance's eigenvectors
POINTS = torch.from_numpy(
    np.random.default_rng(1).normal(size=(5, 3)) * VARIANCES.sqrt().numpy() @ _basis.T
    + MEAN.numpy()
)


def gaussian_denoiser(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """The posterior mean of data N(MEAN, BASIS diag(VARIANCES) BASIS^T)."""
    gain = alpha * VARIANCES / (alpha**2 * VARIANCES + sigma**2)
    return MEAN + ((x - alpha * MEAN) @ BASIS * gain) @ BASIS.T


CENTERS = torch.tensor([[-1.0, 0.5, 0], [0.8, 0.6, 0], [0.1, -0.9, 0.4]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
SPREAD = 0.09  # every component's variance


def mixture_denoiser(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """The posterior mean of a mixture of three Gaussians."""
    variance = alpha**2 * SPREAD + sigma**2
    gaps = x[:, None] - alpha * CENTERS[:, : x.shape[1]]
    share = torch.softmax(WEIGHTS.log() - gaps.square().sum(-1) / (2 * variance), 1)
    means = CENTERS[:, : x.shape[1]] + alpha * SPREAD / variance * gaps
    return (share[..., None] * means).sum(1)


def gaussian_likelihood(spec: ModelSpec, x0: Tensor) -> Array:
    """log p(x0) of the ODE whose D is exact, from its solution.

    With x = alpha * u, every (u - mean) / sqrt(variance + (sigma / alpha)^2) stays as it is, in the
    covariance's own axes.
    """
    alpha, sigma = spec.schedule.alpha, spec.schedule.sigma
    before, after = (VARIANCES.numpy() + (sigma[end] / alpha[end]) ** 2 for end in (0, -1))
    moved = ((x0 - MEAN) @ BASIS).numpy() * np.sqrt(after / before) @ BASIS.numpy().T
    end = moved + MEAN.numpy()
    std = 1 / alpha[-1] if spec.schedule.variance_preserving else sigma[-1]
    prior = -0.5 * (end / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))
    return prior.sum(1) + 0.5 * np.log(after / before).sum()


@pytest.mark.parametrize("name", SPECS)
def test_gaussian_data(name: str) -> None:
    spec = SPECS[name]
    actual = log_likelihood(
        make_network(spec, gaussian_denoiser), POINTS, spec, probes=0, steps=100
    )
    np.testing.assert_allclose(actual, gaussian_likelihood(spec, POINTS), atol=1e-4)


def test_labelled_levels_are_interpolated() -> None:
    exact = make_network(LABELLED, gaussian_denoiser)

    def network(x: Tensor, cond: Tensor) -> Tensor:
        assert cond[0] % 1 == 0, "asked between its levels"
        return exact(x, cond)

    actual = log_likelihood(network, POINTS, LABELLED, probes=0, steps=100)
    np.testing.assert_allclose(actual, gaussian_likelihood(LABELLED, POINTS), atol=1e-3)


@pytest.mark.parametrize("name", ["epsilon", "edm"])
def test_the_error_falls_with_the_fourth_power_of_the_steps(name: str) -> None:
    spec = SPECS[name]
    network, expected = make_network(spec, gaussian_denoiser), gaussian_likelihood(spec, POINTS)
    found = [log_likelihood(network, POINTS, spec, probes=0, steps=n).numpy() for n in (10, 20, 40)]
    errors = [np.abs(values - expected).max() for values in found]
    assert errors[0] / errors[1] > 8
    assert errors[1] / errors[2] > 12


@pytest.mark.parametrize("name", TO_NOISE)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_mixture_has_its_exact_density(name: str, dimensions: int) -> None:
    spec = replace(TO_NOISE[name], shape=(dimensions,))
    rng = np.random.default_rng(3)
    x0 = torch.from_numpy(rng.normal(size=(200, dimensions)))
    least = float(spec.schedule.sigma[0] / spec.schedule.alpha[0])
    variance = SPREAD + least**2
    distance = (x0[:, None] - CENTERS[:, :dimensions]).square().sum(-1)
    expected = torch.logsumexp(WEIGHTS.log() - distance / (2 * variance), 1)
    expected -= dimensions / 2 * math.log(2 * math.pi * variance)
    actual = log_likelihood(make_network(spec, mixture_denoiser), x0, spec, probes=0, steps=100)
    np.testing.assert_allclose(actual, expected, atol=5e-3)


def test_random_probes_have_the_exact_trace_as_their_mean() -> None:
    spec, count = SPECS["epsilon"], 4000
    network, x0 = make_network(spec, gaussian_denoiser), POINTS[:1].expand(count, 3)
    exact = log_likelihood(network, x0[:1], spec, probes=0, steps=8)
    one = log_likelihood(network, x0, spec, probes=1, steps=8)
    four = log_likelihood(network, x0, spec, probes=4, steps=8)
    spread = float(one.std())
    assert spread > 0.1  # a probe alone is wrong
    assert abs(float(one.mean() - exact)) < 4 * spread / math.sqrt(count)
    assert float(four.std()) == pytest.approx(spread / 2, rel=0.1)


def test_equal_seed_and_number_give_equal_likelihoods_in_any_batch() -> None:
    spec = SPECS["v"]
    network = make_network(spec, gaussian_denoiser)
    together = log_likelihood(network, POINTS, spec, steps=5, seed=7)
    alone = [
        log_likelihood(network, POINTS[[i]], spec, steps=5, seed=7, samples=np.array([i]))
        for i in range(5)
    ]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-12, atol=1e-12)
    other = log_likelihood(network, POINTS, spec, steps=5, seed=8)
    assert not torch.equal(other, together)


def test_a_learned_variance_has_no_part_in_it() -> None:
    plain = SPECS["epsilon"]
    learned = replace(plain, learned_variance=True)
    network = make_network(plain, gaussian_denoiser)

    def both(x: Tensor, cond: Tensor) -> Tensor:
        return torch.cat((network(x, cond), 3 * x.square()), 1)

    expected = log_likelihood(network, POINTS, plain, steps=5)
    assert torch.equal(log_likelihood(both, POINTS, learned, steps=5), expected)


@pytest.mark.parametrize("data_range", [(-1.0, 1.0), (0.0, 1.0)])
def test_the_masses_of_all_grey_levels_sum_to_one(data_range: tuple[float, float]) -> None:
    low, high = data_range
    middle, variance = (low + high) / 2, (0.12 * (high - low)) ** 2

    def denoiser(x: Tensor, alpha: float, sigma: float) -> Tensor:
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return middle + gain * (x - alpha * middle)

    spec = replace(TO_NOISE["VP"], shape=(1, 1, 1), data_range=data_range)
    images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    bits = likelihood.bits_per_dim(make_network(spec, denoiser), images, spec, steps=100)
    assert float((2**-bits).sum()) == pytest.approx(1, abs=0.01)
    least = float(spec.schedule.sigma[0] / spec.schedule.alpha[0])
    std = math.sqrt(variance + least**2)
    peak = (high - low) / 256 / (std * math.sqrt(2 * math.pi))
    assert float(bits.min()) == pytest.approx(-math.log2(peak), abs=0.01)


def test_dequantized_images_fill_their_cells_evenly() -> None:
    images = torch.tensor([0, 7, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 40, 40)
    x0 = likelihood.dequantized(images, (-1.0, 1.0), 0, np.arange(3))
    within = (x0.double() + 1) / 2 * 256 - images
    assert within.min() > -1e-4
    assert within.max() < 1 + 1e-4
    quarters = torch.histc(within.clamp(0, 1), 4, 0, 1) / within.numel()
    torch.testing.assert_close(quarters, torch.full_like(quarters, 0.25), atol=0.03, rtol=0)


class Echo(nn.Module):
    """Returns what `condition` was told."""

    def condition(self, cond: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.stack((cond, cond - cond if label is None else label.to(cond)), 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return c


def test_a_model_with_classes_is_told_of_none() -> None:
    x, cond = torch.zeros(2, 3), torch.tensor([4.0, 5.0])
    plain = SPECS["epsilon"]
    told = likelihood.without_label(Echo(), plain)(x, cond)
    assert told.tolist() == [[4, 0], [5, 0]]
    told = likelihood.without_label(Echo(), replace(plain, classes=10, null_label=True))(x, cond)
    assert told.tolist() == [[4, 10], [5, 10]]
    with pytest.raises(UsageError, match="density of each class"):
        likelihood.without_label(Echo(), replace(plain, classes=10))


def test_what_has_no_likelihood() -> None:
    spec = SPECS["epsilon"]
    network = make_network(spec, gaussian_denoiser)
    with pytest.raises(UsageError, match="0 steps"):
        log_likelihood(network, POINTS, spec, steps=0)
    with pytest.raises(UsageError, match="-1 probes"):
        log_likelihood(network, POINTS, spec, probes=-1)
    single = replace(spec, schedule=schedules.linear(steps=1))
    with pytest.raises(UsageError, match="a single level"):
        log_likelihood(network, POINTS, single)
