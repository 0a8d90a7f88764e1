"""The variational bound of DDPM by its terms, for any bundle of images and without PyTorch.

Equation numbers are those of Ho et al. (2020). The network runs once at each level. The squared
errors that it leaves there give the bound of every chain that visits some of the levels.
"""

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from difftool import Model, ModelSpec, Program, ProgramBuilder, data
from difftool.runtime import Draws

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

VARIANCES: Final = ("small", "large")
_BITS: Final = 1 / math.log(2)


@dataclass(frozen=True)
class Errors:
    """What a network leaves to guess, in n images x0 [n, *S] with noise at each of L levels.

    - `data`: the mean square of D - x0, with D clipped to the data's range; [L]
    - `noise`: the mean square of the predicted noise minus the noise; [L]
    - `x0`, `first`: the images, and D at level 0; [n, *S]
    """

    data: Array
    noise: Array
    x0: Floats
    first: Floats


class Chain(NamedTuple):
    """The steps of a chain that visits S levels, from the one to the data on; [S] each.

    A step's posterior is N(a x + b x0, small), and `large` the forward step's variance (eq. 7).
    """

    levels: NDArray[np.int64]
    b: Array
    small: Array
    large: Array


def looking_program(spec: ModelSpec) -> Program:
    """Make a program with a row for each level, which leaves x as it is and shows D."""
    builder = ProgramBuilder(spec, clip=False)
    for level in range(len(spec.schedule)):
        builder.row(level, level, a=1.0, b=0.0)
    return builder.build(exact_noise=False)


def measure_errors(model: Model, images: NDArray[np.uint8], *, seed: int = 0) -> Errors:
    """Run a model at every level on images uint8 [n, *S]; level i has draw i of the seed."""
    spec, program = model.spec, looking_program(model.spec)
    low, high = spec.data_range or (-1.0, 1.0)
    x0 = data.prepared(images, spec.data_range)
    batch = model.backend.batch(program, len(x0))
    draws = Draws(seed, np.arange(len(x0)), spec.shape)
    of_data, of_noise, first = [], [], x0
    for level, (alpha, sigma) in enumerate(
        zip(spec.schedule.alpha, spec.schedule.sigma, strict=True)
    ):
        noise = draws.normal(level)
        x = (alpha * x0 + sigma * noise).astype(np.float32)
        batch.start(x, row=level)
        batch.step(None)
        denoised = batch.denoised.copy()
        clipped = denoised.clip(low, high)
        first = clipped if level == 0 else first
        of_data.append(np.square(clipped - x0, dtype=np.float64).mean())
        of_noise.append(np.square((x - alpha * denoised) / sigma - noise, dtype=np.float64).mean())
    return Errors(np.array(of_data), np.array(of_noise), x0, first)


def chain(spec: ModelSpec, levels: NDArray[np.int64]) -> Chain:
    """Return the steps of a chain that visits these levels, given from least to most noise."""
    alpha, sigma = spec.schedule.alpha[levels], spec.schedule.sigma[levels]
    alpha_to, sigma_to = np.append(1.0, alpha[:-1]), np.append(0.0, sigma[:-1])
    large = sigma**2 - (alpha / alpha_to * sigma_to) ** 2
    small = large * (sigma_to / sigma) ** 2
    small[0] = small[1]  # the posterior of the step to the data is a point
    return Chain(levels, alpha_to * large / sigma**2, small, large)


def terms(errors: Errors, spec: ModelSpec, visited: Chain, variance: str) -> Array:
    """Return L_0 to L_T of eq. 5, in bits per dimension; [S + 1].

    L_0 is the cost of the data in 256 grey levels (eq. 13), L_T the divergence from the prior.
    """
    chosen = visited.small if variance == "small" else visited.large
    ratio = visited.small / chosen
    error = visited.b**2 * errors.data[visited.levels]
    found = 0.5 * (ratio - 1 - np.log(ratio) + error / chosen)
    found[0] = -log_mass(errors, spec, math.sqrt(chosen[0])).mean()
    last = visited.levels[-1]
    alpha, square = spec.schedule.alpha[last], spec.schedule.sigma[last] ** 2
    signal = alpha**2 * np.square(errors.x0, dtype=np.float64).mean()
    prior = 0.5 * (signal + square - 1 - math.log(square))
    return np.append(found, prior) * _BITS


def log_mass(errors: Errors, spec: ModelSpec, std: float) -> Array:
    """Return the log mass of N(D, std^2) on the grey level of each pixel, for D at level 0."""
    low, high = spec.data_range or (-1.0, 1.0)
    half, x0 = (high - low) / 510, errors.x0.astype(np.float64)
    mean = errors.first.astype(np.float64)
    above = np.where(x0 > high - half, 1.0, normal_cdf((x0 + half - mean) / std))
    below = np.where(x0 < low + half, 0.0, normal_cdf((x0 - half - mean) / std))
    return np.log(np.maximum(above - below, 1e-12))


def normal_cdf(z: Array) -> Array:
    """Return the standard normal's distribution function."""
    return np.asarray(0.5 * np.vectorize(math.erfc, otypes=[float])(-z / math.sqrt(2)))


def weights(spec: ModelSpec, variance: str) -> Array:
    """Return the bound's weights of the squared error of the noise at levels 1 .. L - 1 (eq. 12).

    They are scaled to a mean of 1, which is what the simple loss has at each level (eq. 14).
    """
    visited = chain(spec, np.arange(len(spec.schedule)))
    alpha, sigma = spec.schedule.alpha, spec.schedule.sigma
    chosen = visited.small if variance == "small" else visited.large
    found = (visited.b * sigma / alpha) ** 2 / (2 * chosen)
    return found[1:] / found[1:].mean()


def told(model: Model, images: NDArray[np.uint8], levels: list[int], *, seed: int = 0) -> Array:
    """Return mean squared errors of the noise if the network is told another level; [K, K].

    Row i has the noise of `levels[i]`, and in column j the network is told `levels[j]`.
    """
    spec, program = model.spec, looking_program(model.spec)
    x0 = data.prepared(images, spec.data_range)
    batch = model.backend.batch(program, len(x0))
    draws = Draws(seed, np.arange(len(x0)), spec.shape)
    found = np.empty((len(levels), len(levels)))
    for row, level in enumerate(levels):
        alpha, sigma = spec.schedule.alpha[level], spec.schedule.sigma[level]
        noise = draws.normal(level)
        x = (alpha * x0 + sigma * noise).astype(np.float32)
        for column, other in enumerate(levels):
            batch.start(x, row=other)
            batch.step(None)
            # D came from the output by the coefficients of the level that was told.
            _, c_skip, c_out = (float(c) for c in spec.coefficients(other))
            output = (batch.denoised - c_skip * x) / c_out
            _, c_skip, c_out = (float(c) for c in spec.coefficients(level))
            predicted = (x - alpha * (c_skip * x + c_out * output)) / sigma
            found[row, column] = np.square(predicted - noise, dtype=np.float64).mean()
    return found
