"""The losses of distillation: pure functions of D, alpha and sigma, one number a sample.

A student's D [N, *S] at a level replaces many steps of a solver from there. What the networks
predict does not matter here, because a `Denoiser` already returns D. A noisy sample is
x = alpha * x0 + sigma * noise, and t = sigma / alpha is the noise of x / alpha.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from torch import Tensor

HUBER: Final = 0.00054  # of the square root of a sample's size (Song and Dhariwal 2023, sec. 3.3)


class Level(NamedTuple):
    """The level of each sample: its place int64 [N] in the schedule, alpha and sigma [N, 1, ...].

    The place -1 is the clean sample, with alpha 1 and sigma 0.
    """

    place: Tensor
    alpha: Tensor
    sigma: Tensor


Denoiser = Callable[[Tensor, Level], Tensor]


class Denoisers(NamedTuple):
    """The three estimates of x0 that losses compare; each takes x [N, *S] and its level.

    - `student`: the network that learns, with its gradient
    - `target`: the same network without one
    - `teacher`: the network that it learns from, guided if that was asked for
    """

    student: Denoiser
    target: Denoiser
    teacher: Denoiser


def step(x: Tensor, denoised: Tensor, level: Level, target: Level) -> Tensor:
    """Return x at `target`, by one step of DDIM (Song et al. 2021a, eq. 12 without noise)."""
    kept = target.sigma / level.sigma
    return kept * x + (target.alpha - kept * level.alpha) * denoised


def consistency(
    nets: Denoisers, x0: Tensor, noise: Tensor, path: Sequence[Level], sigma_data: float
) -> Tensor:
    """Return the loss of consistency distillation from level t to level r; [N].

    With x_t = alpha_t x0 + sigma_t noise, x_r is one step of DDIM from x_t along the teacher's D,
    and the student must agree with itself on both (Song et al. 2023, eq. 7 with Euler's solver):

        w(t) * mean (D(x_t, t) - stopgrad(D(x_r, r)))^2

    The target is the student itself and no average of it (Song and Dhariwal 2023, sec. 3.2). The
    weight is w(t) = 1 / t^2 + 1 / sigma_data^2, and r comes nearer to t from stage to stage (Geng
    et al. 2024, Easy Consistency Tuning, sec. 3). At the clean end D(x, 0) = x.
    """
    upper, lower = path
    noisy = _perturb(x0, noise, upper)
    below = step(noisy, nets.teacher(noisy, upper), upper, lower)
    error = _disagreement(nets, noisy, below, path) / x0[0].numel()
    return _weight(upper, sigma_data) * error


def consistency_tuning(
    nets: Denoisers, x0: Tensor, noise: Tensor, path: Sequence[Level], sigma_data: float
) -> Tensor:
    """Return the loss of Easy Consistency Tuning from level t to level r; [N].

    This is `consistency` with the data in place of the teacher: x_t and x_r have the same x0 and
    the same noise (Geng et al. 2024, algorithm 1). The teacher gives its weights to start from, and
    nothing else, so that the student is not bound by the teacher's errors. Since data is farther
    from D than a teacher is, errors count by sqrt(|.|^2 + c^2) - c instead of the square, with c =
    0.00054 sqrt(size of a sample) (Song and Dhariwal 2023, sec. 3.3).
    """
    upper, lower = path
    noisy, below = _perturb(x0, noise, upper), _perturb(x0, noise, lower)
    c = HUBER * math.sqrt(x0[0].numel())
    distance = (_disagreement(nets, noisy, below, path) + c**2).sqrt() - c
    return _weight(upper, sigma_data) * distance


def progressive(
    nets: Denoisers, x0: Tensor, noise: Tensor, path: Sequence[Level], sigma_data: float
) -> Tensor:
    """Return the loss of progressive distillation over the levels t, m and s; [N].

    The teacher takes two steps of DDIM from x_t, to m and on to s. The student's D must reach the
    same x_s in one (Salimans and Ho 2022, algorithm 2):

        x~ = (x_s - k x_t) / (alpha_s - k alpha_t)    k = sigma_s / sigma_t
        max(SNR_t, 1) * mean (D(x_t, t) - x~)^2       SNR = (alpha / sigma)^2

    The weight is their truncated SNR (sec. 4).
    """
    upper, middle, lower = path
    noisy = _perturb(x0, noise, upper)
    half = step(noisy, nets.teacher(noisy, upper), upper, middle)
    whole = step(half, nets.teacher(half, middle), middle, lower)
    kept = lower.sigma / upper.sigma
    wanted = (whole - kept * noisy) / (lower.alpha - kept * upper.alpha)
    snr = (upper.alpha / upper.sigma).square().flatten()
    error = (nets.student(noisy, upper) - wanted).square().flatten(1).mean(1)
    return snr.clamp(min=1) * error


def _disagreement(nets: Denoisers, noisy: Tensor, below: Tensor, path: Sequence[Level]) -> Tensor:
    """Return |D(x_t, t) - D(x_r, r)|^2 of each sample; [N]."""
    upper, lower = path
    return (nets.student(noisy, upper) - nets.target(below, lower)).square().flatten(1).sum(1)


def _weight(level: Level, sigma_data: float) -> Tensor:
    return (level.alpha / level.sigma).square().flatten() + 1 / sigma_data**2


def _perturb(x0: Tensor, noise: Tensor, level: Level) -> Tensor:
    return level.alpha * x0 + level.sigma * noise
