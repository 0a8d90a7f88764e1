"""The losses of distillation against their equations, written out for a network of two numbers."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from difftool.diffusion.spec import ModelSpec
from difftool.train.distillation import losses
from difftool.train.distillation.losses import Denoisers, Level
from difftool.train.distillation.methods import METHODS, consistency_stages, progressive_stages
from tests.oracles.analytic import NCSNV2, VE, VP

X0, NOISE = (torch.from_numpy(np.random.default_rng(k).normal(size=(3, 4))) for k in (1, 2))
TEACHER = torch.tensor([0.7, -0.2], dtype=torch.float64)


def denoise(weights: Tensor, x: Tensor, sigma: float) -> Tensor:
    return torch.tanh(weights[0] * x) + weights[1] * sigma


def levels(spec: ModelSpec, path: list[int]) -> list[tuple[float, float]]:
    clean = (1.0, 0.0)
    at = [clean if i < 0 else tuple(map(float, spec.schedule.at(i))) for i in path]
    return [(alpha, sigma) for alpha, sigma in at]


def ours(method: str, spec: ModelSpec, path: list[int], weights: Tensor) -> Tensor:
    def of(given: Tensor) -> losses.Denoiser:
        return lambda x, level: torch.tanh(given[0] * x) + given[1] * level.sigma

    rows = [
        Level(
            torch.full((3,), index),
            torch.full((3, 1), alpha, dtype=torch.float64),
            torch.full((3, 1), sigma, dtype=torch.float64),
        )
        for index, (alpha, sigma) in zip(path, levels(spec, path), strict=True)
    ]
    nets = Denoisers(of(weights), of(weights.detach()), of(TEACHER))
    return METHODS[method].loss(nets, X0, NOISE, rows, spec.sigma_data)


def plain_consistency(spec: ModelSpec, path: list[int], weights: Tensor, *, tuned: bool) -> Tensor:
    (alpha_t, sigma_t), (alpha_r, sigma_r) = levels(spec, path)
    total, c = [], 0.00054 * math.sqrt(4)
    for x0, noise in zip(X0, NOISE, strict=True):
        x_t = alpha_t * x0 + sigma_t * noise
        estimate = x0 if tuned else denoise(TEACHER, x_t, sigma_t)
        epsilon = (x_t - alpha_t * estimate) / sigma_t
        x_r = alpha_r * estimate + sigma_r * epsilon
        target = denoise(weights, x_r, sigma_r).detach()
        distance = (denoise(weights, x_t, sigma_t) - target).square().sum()
        weight = 1 / (sigma_t / alpha_t) ** 2 + 1 / spec.sigma_data**2
        total.append(weight * (torch.sqrt(distance + c**2) - c if tuned else distance / 4))
    return torch.stack(total)


def plain_progressive(spec: ModelSpec, path: list[int], weights: Tensor) -> Tensor:
    (alpha_t, sigma_t), (alpha_m, sigma_m), (alpha_s, sigma_s) = levels(spec, path)
    total = []
    for x0, noise in zip(X0, NOISE, strict=True):
        z_t = alpha_t * x0 + sigma_t * noise
        first = denoise(TEACHER, z_t, sigma_t)
        z_m = alpha_m * first + sigma_m / sigma_t * (z_t - alpha_t * first)
        second = denoise(TEACHER, z_m, sigma_m)
        z_s = alpha_s * second + sigma_s / sigma_m * (z_m - alpha_m * second)
        target = (z_s - sigma_s / sigma_t * z_t) / (alpha_s - sigma_s / sigma_t * alpha_t)
        snr = alpha_t**2 / sigma_t**2
        error = (denoise(weights, z_t, sigma_t) - target).square().mean()
        total.append(max(snr, 1.0) * error)
    return torch.stack(total)


@pytest.mark.parametrize("spec", [VP, replace(NCSNV2, sigma_data=0.3)], ids=["vp", "ve"])
@pytest.mark.parametrize("path", [[60, 35, 20], [90, 8, -1]], ids=["noisy", "clean"])
@pytest.mark.parametrize("method", METHODS)
def test_losses_and_gradients_are_those_of_the_equations(
    method: str, path: list[int], spec: ModelSpec
) -> None:
    path = path if method == "progressive" else path[::2]
    weights = torch.tensor([1.3, 0.4], dtype=torch.float64, requires_grad=True)
    found = ours(method, spec, path, weights)
    if method == "progressive":
        wanted = plain_progressive(spec, path, weights)
    else:
        tuned = method == "consistency_tuning"
        wanted = plain_consistency(spec, path, weights, tuned=tuned)
    torch.testing.assert_close(found, wanted)
    slopes = [torch.autograd.grad(value.sum(), weights)[0] for value in (found, wanted)]
    assert slopes[0].abs().min() > 1e-6
    torch.testing.assert_close(*slopes)


def test_pairs_of_levels_come_nearer_by_the_papers_mapping() -> None:
    stages = consistency_stages(VP.schedule, 2, None)
    assert len(stages) == 8
    ratios = VP.schedule.sigma / VP.schedule.alpha
    for stage, each in enumerate(stages):
        upper, lower = each.paths.T
        assert upper.tolist() == list(range(1000))
        assert (lower < upper).all()
        share = 1 - (1 + 8 / (1 + np.exp(ratios))) / 2 ** (stage + 1)
        for t in (5, 400, 700, 999):
            wanted, found = ratios[t] * share[t], lower[t]
            assert found < 0 or ratios[found] <= wanted
            assert ratios[found + 1] > wanted  # and it is the nearest
    gaps = [int((each.paths[:, 0] - each.paths[:, 1]).sum()) for each in stages]
    assert gaps == sorted(gaps, reverse=True)


def test_coarse_levels_are_paired_with_the_next() -> None:
    last = consistency_stages(VE.schedule, 2, None)[-1]
    assert last.paths.tolist() == [[level, level - 1] for level in range(10)]


def test_a_students_levels_are_every_second_one_of_its_teacher() -> None:
    stages = progressive_stages(VP.schedule, 4, 3)
    assert [len(each.paths) for each in stages] == [16, 8, 4]
    assert stages[-1].paths.tolist() == [
        [999, 874, 749],
        [749, 624, 499],
        [499, 374, 249],
        [249, 124, -1],
    ]
    for before, after in pairwise(stages):
        taught = set(before.paths[:, 0].tolist())
        assert taught == set(after.paths[:, :2].flatten().tolist())
