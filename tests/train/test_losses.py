"""Losses against hand computation, and their minimisers against the true score of a Gaussian."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from difftool.diffusion.parameterization import PARAMETERIZATIONS
from difftool.diffusion.schedules import geometric, linear
from difftool.diffusion.spec import ModelSpec
from difftool.train import draws, losses
from difftool.train.config import TrainConfig, apply_overrides, model_spec
from difftool.train.objective import Objective

Loss = Callable[[losses.Network, Tensor, Tensor, losses.Levels], Tensor]


def make_spec(parameterization: str, *, shape: tuple[int, ...] = (3,)) -> ModelSpec:
    return ModelSpec(
        shape=shape,
        schedule=linear(steps=10, beta_end=0.3),
        parameterization=parameterization,
        cond="timestep",
        sigma_data=0.7,
    )


def one_level(sigma: float, x0: Tensor) -> losses.Levels:
    """The numbers of each point's level, in a model of points with a single level."""
    schedule = geometric(levels=1, sigma_min=sigma, sigma_max=sigma)
    spec = ModelSpec(shape=(2,), schedule=schedule, parameterization="score", cond="level")
    return losses.level_table(spec).at(torch.zeros(len(x0), dtype=torch.int64), 2)


def batch(size: int = 6, shape: tuple[int, ...] = (3,)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(size, *shape, generator=generator)
    noise = torch.randn(size, *shape, generator=generator)
    return x0, torch.arange(size) % 10, noise


def sliced_along_axes(
    network: losses.Network, x0: Tensor, noise: Tensor, row: losses.Levels
) -> Tensor:
    """The sliced loss averaged over directions whose second moment is exactly the identity."""
    axes = torch.eye(x0.shape[1], dtype=x0.dtype) * x0.shape[1] ** 0.5
    along = [losses.sliced(network, x0, noise, row, axis.expand_as(x0)) for axis in axes]
    return torch.stack(along).mean(0)


def test_simple_is_the_plain_formula() -> None:
    x0, levels, noise = batch(shape=(1, 4, 4))
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.3, 10))[levels.numpy()].reshape(-1, 1, 1, 1)

    def network(x: Tensor, cond: Tensor) -> Tensor:
        return torch.sin(x) + cond.view(-1, 1, 1, 1)

    x = np.sqrt(alpha_bar) * x0.numpy() + np.sqrt(1 - alpha_bar) * noise.numpy()
    predicted = np.sin(x) + levels.numpy().reshape(-1, 1, 1, 1)
    expected = ((noise.numpy() - predicted) ** 2).mean(axis=(1, 2, 3))
    row = losses.level_table(make_spec("epsilon", shape=(1, 4, 4))).at(levels, 4)
    actual = losses.simple(network, x0, noise, row)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_targets_are_the_papers() -> None:
    x0, levels, noise = batch()
    for parameterization in ("epsilon", "x0", "v", "score", "scaled_score"):
        row = losses.level_table(make_spec(parameterization)).at(levels, 2)
        expected = {
            "epsilon": noise,
            "x0": x0,
            "v": row.alpha * noise - row.sigma * x0,
            "score": -noise / row.sigma,
            "scaled_score": -noise,
        }[parameterization]
        torch.testing.assert_close(losses.target(x0, noise, row), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_a_network_that_knows_the_data_has_no_loss(parameterization: str) -> None:
    x0, levels, noise = batch()
    spec = make_spec(parameterization)
    row = losses.level_table(spec).at(levels, 2)
    _, skip, out = (torch.from_numpy(c)[:, None] for c in spec.coefficients(levels.numpy()))
    x = losses.perturb(x0.double(), noise.double(), row)
    output = (x0 - skip * x) / out

    def network(scaled: Tensor, cond: Tensor) -> Tensor:
        torch.testing.assert_close(scaled, row.c_in * x)
        return output

    for loss in (losses.simple, losses.denoising):
        assert loss(network, x0.double(), noise.double(), row).max() < 1e-8


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_a_wrong_score_costs_the_same_in_every_parameterization(parameterization: str) -> None:
    """Here the score is -x / 2."""
    x0, levels, noise = batch()
    spec = make_spec(parameterization)
    row = losses.level_table(spec).at(levels, 2)
    alpha, sigma = (torch.from_numpy(c)[:, None] for c in spec.schedule.at(levels.numpy()))
    c_in, skip, out = (torch.from_numpy(c)[:, None] for c in spec.coefficients(levels.numpy()))

    def network(scaled: Tensor, cond: Tensor) -> Tensor:
        x = scaled / c_in
        denoised = (x + sigma**2 * (-x / 2)) / alpha
        return (denoised - skip * x) / out

    x = alpha * x0 + sigma * noise
    difference = -x / 2 - (alpha * x0 - x) / sigma**2
    expected = sigma[:, 0] ** 2 / 2 * (difference**2).sum(1)
    actual = losses.denoising(network, x0.double(), noise.double(), row)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_simple_weighs_the_levels_as_edm_does() -> None:
    """By (sigma^2 + sigma_data^2) / (sigma * sigma_data)^2 for the error of D (table 1)."""
    x0, _, noise = batch(4)
    schedule = geometric(levels=4, sigma_min=0.1, sigma_max=20.0)
    spec = ModelSpec(
        shape=(3,), schedule=schedule, parameterization="edm", cond="level", sigma_data=0.3
    )
    levels = torch.arange(4)
    row = losses.level_table(spec).at(levels, 2)
    x, sigma = losses.perturb(x0, noise, row), row.sigma
    denoised = row.c_skip * x + row.c_out * torch.sin(row.c_in * x)
    weight = (sigma**2 + 0.3**2) / (sigma * 0.3) ** 2
    expected = (weight * (denoised - x0).square()).mean(1)
    actual = losses.simple(lambda x, cond: torch.sin(x), x0, noise, row)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_min_snr_weighs_the_error_of_x0(parameterization: str) -> None:
    x0, levels, noise = batch()
    row = losses.level_table(make_spec(parameterization)).at(levels, 2)
    denoised = row.c_skip * losses.perturb(x0, noise, row) + row.c_out * torch.cos(
        row.c_in * losses.perturb(x0, noise, row)
    )
    snr = (row.alpha / row.sigma) ** 2
    assert snr.min() < 5 < snr.max()
    expected = (torch.minimum(snr, torch.tensor(5.0)) * (denoised - x0).square()).mean(1)
    plain = losses.simple(lambda x, cond: torch.cos(x), x0, noise, row)
    actual = plain * losses.min_snr(row, 5.0)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5)


def test_the_loss_of_a_training_is_weighted(images_config: TrainConfig) -> None:
    x0, slots, found = torch.rand(8, 1, 8, 8), np.arange(8), []
    for override in ("loss.min_snr=none", "loss.min_snr=1.0"):
        config = apply_overrides(images_config, [override])
        spec = model_spec(config, (1, 8, 8))
        objective = Objective(config, spec, torch.device("cpu"))
        found.append(objective(lambda x, cond: x, x0, None, 0, slots))
    row = objective.table.at(draws.levels(3, 0, slots, 20), 4)
    torch.testing.assert_close(found[1], found[0] * losses.min_snr(row, 1.0))
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("loss", [losses.implicit, sliced_along_axes])
def test_the_trace_of_a_linear_score_is_exact(loss: Loss) -> None:
    matrix, offset = torch.tensor([[1.0, 2.0], [-3.0, 0.5]]), torch.tensor([0.3, -0.2])
    x0, _, noise = batch(shape=(2,))
    score = (x0 + 0.5 * noise) @ matrix.T + offset
    expected = 0.25 * (1.5 + 0.5 * (score**2).sum(1))
    actual = loss(lambda x, cond: x @ matrix.T + offset, x0, noise, one_level(0.5, x0))
    torch.testing.assert_close(actual, expected)


def minimiser(loss: Loss, sigma: float, x0: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The linear score A x + b of least loss: one Newton step, as the loss is quadratic in it."""
    row = one_level(sigma, x0)

    def total(parameters: Tensor) -> Tensor:
        matrix, offset = parameters[:4].view(2, 2), parameters[4:]
        return loss(lambda x, cond: x @ matrix.T + offset, x0, noise, row).mean()

    origin = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(total(origin), origin)
    hessian = torch.autograd.functional.hessian(total, origin)
    best = -torch.linalg.solve(hessian, gradient)
    return best[:4].view(2, 2), best[4:]


@pytest.mark.parametrize("loss", [losses.denoising, losses.implicit, sliced_along_axes])
def test_the_minimiser_is_the_score_of_the_noisy_gaussian(loss: Loss) -> None:
    generator = torch.Generator().manual_seed(1)
    factor = torch.tensor([[1.0, 0.0], [0.6, 0.5]], dtype=torch.float64)
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    z, noise = torch.randn(2, 40_000, 2, generator=generator, dtype=torch.float64)
    matrix, offset = minimiser(loss, 0.8, mean + z @ factor.T, noise)
    expected = -torch.linalg.inv(factor @ factor.T + 0.8**2 * torch.eye(2))
    torch.testing.assert_close(matrix, expected, rtol=0.03, atol=0.03)
    torch.testing.assert_close(offset, -expected @ mean, rtol=0.03, atol=0.03)


def test_random_directions_agree_with_the_trace_on_average() -> None:
    generator = torch.Generator().manual_seed(2)
    x0 = torch.zeros(50_000, 2)
    directions = torch.randn(50_000, 2, generator=generator)
    arguments = (lambda x, cond: torch.tanh(2 * x), x0, torch.zeros_like(x0), one_level(1.0, x0))
    sliced = losses.sliced(*arguments, directions).mean()
    assert sliced.item() == pytest.approx(losses.implicit(*arguments).mean().item(), abs=0.05)


def test_score_losses_train_the_network() -> None:
    weight = torch.tensor(0.5, requires_grad=True)
    x0, _, noise = batch(shape=(2,))
    losses.implicit(lambda x, cond: weight * x, x0, noise, one_level(1.0, x0)).mean().backward()
    expected = 2 + 0.5 * ((x0 + noise) ** 2).sum(1).mean()
    torch.testing.assert_close(weight.grad, expected)
