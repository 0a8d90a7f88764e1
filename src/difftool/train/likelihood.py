"""The likelihood of data under a model, by the change of variables along its probability-flow ODE.

The ODE (Song et al. 2021b, "Score-Based Generative Modeling through SDEs", eq. 13) moves data to
noise. Its divergence is the rate at which the log density falls (eq. 39). Both VP and VE models are
integrated as y = x / sqrt(alpha^2 + sigma^2) over s = -half_log_snr:

    dy/ds = a * (a * y - D)      div = a * (a * dimensions - tr(dD/dy))
    a = alpha / sqrt(alpha^2 + sigma^2)

Both are bounded at both ends: with little noise D is near y, and with much noise a is near 0. They
are integrated with Runge and Kutta's method of order 4 in even steps of s. score_sde uses scipy's
RK45 instead, whose step size adapts to the error of a whole batch; there a sample's likelihood
depends on its neighbours. To see the error, double the steps.

The density is that of the samples that the exact ODE makes from noise:

- At the most noise x is N(0, I) for a VP model and N(0, sigma_max^2) for a VE one, as when sampling
  starts. If sigma_max is small, the data's own variance is missing there, which costs likelihood.
- At the least noise x / alpha is the sample, with its noise: the density is that of the data
  blurred by sigma_min / alpha. score_sde does the same at its eps.
- D is not clipped, and a learned variance plays no part.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from difftool.data import prepared
from difftool.diffusion import noise as philox
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.networks import raw_output
from difftool.train.losses import Network

STEPS: Final = 50  # on MNIST the mean is within 3e-4 bits/dim of that with 100 steps

_DITHER, _PROBES = 0, 1  # draws of the stream; probe k has draw _PROBES + k

Indices = NDArray[np.int64]
Progress = Callable[[], None]


def without_label(module: nn.Module, spec: ModelSpec) -> Network:
    """Return a checkpoint's network as a function of x and cond, with the null label if any.

    UsageError if it was trained with labels only, and so knows no density without them.
    """
    if spec.classes and not spec.null_label:
        raise UsageError(
            "this model knows the density of each class, but not of all classes together",
            "train it with label_dropout",
        )

    def network(x: Tensor, cond: Tensor) -> Tensor:
        null = [torch.full_like(cond, spec.classes, dtype=torch.int64)] if spec.classes else []
        return raw_output(module, x, cond, *null)

    return network


def bits_per_dim(
    network: Network,
    images: Tensor,
    spec: ModelSpec,
    *,
    steps: int = STEPS,
    probes: int = 1,
    seed: int = 0,
    samples: Indices | None = None,
    on_step: Progress = lambda: None,
) -> Tensor:
    """Return the negative log likelihood of images uint8 [N, *S], in bits/dim; float64 [N].

    Grey level g is spread evenly over (g, g + 1] / 256 of the data range, and one point of this
    cell is drawn. The mean log density over the cell bounds the log of the model's mass on g from
    below (Theis et al. 2016, section 3.1), so in the mean this is an upper bound. Arguments and
    errors are those of `log_likelihood`.
    """
    indices = np.arange(len(images)) if samples is None else samples
    low, high = spec.data_range or (0.0, 1.0)  # as training scales them
    x0 = dequantized(images, (low, high), seed, indices)
    nats = log_likelihood(
        network, x0, spec, steps=steps, probes=probes, seed=seed, samples=indices, on_step=on_step
    )
    return -(nats / x0[0].numel() + math.log((high - low) / 256)) / math.log(2)


def dequantized(
    images: Tensor, data_range: tuple[float, float], seed: int, samples: Indices
) -> Tensor:
    """Scale images uint8 [N, *S] to `data_range`, each grey level spread over its cell; float32."""
    shape = tuple(images.shape[1:])
    dither = philox.uniform(seed, _DITHER, samples, shape, stream=philox.EVAL_LIKELIHOOD)
    x0 = prepared(images.cpu().numpy(), data_range, dither)
    return torch.from_numpy(x0).to(images.device)


@torch.no_grad()
def log_likelihood(
    network: Network,
    x0: Tensor,
    spec: ModelSpec,
    *,
    steps: int = STEPS,
    probes: int = 1,
    seed: int = 0,
    samples: Indices | None = None,
    on_step: Progress = lambda: None,
) -> Tensor:
    """Return log p(x0) of data [N, *S], in nats; float64 [N].

    The state is float64, and the network computes in x0's dtype, four times a step. The divergence
    is Hutchinson's estimate (eq. 40) from `probes` vectors of random signs, with one backward pass
    each; they stay the same for all steps. `probes` 0 computes the exact trace, with one backward
    pass for each dimension. `samples` [N] are the samples' numbers, 0 .. N - 1 by default: equal
    seed and number give equal probes in any batch.

    A network of labelled levels (cond "level") knows no levels between. There D is interpolated
    between the two neighbouring levels, linearly in half_log_snr.

    Raises:
        UsageError: `steps` or `probes` is too small, or the model has a single noise level.
    """
    least, most = spec.schedule.half_log_snr[[0, -1]].tolist()
    if steps < 1 or probes < 0:
        raise UsageError(
            f"{steps} steps with {probes} probes",
            "use at least 1 step, and 0 probes for the exact trace or more",
        )
    if least == most:
        raise UsageError(
            "a likelihood needs a way to noise, and this model has a single level",
            "train it with more levels",
        )
    indices = np.arange(len(x0)) if samples is None else samples
    flow = partial(_flow, network, spec, list(_directions(x0, probes, seed, indices)))
    dimensions, grid = x0[0].numel(), np.linspace(-least, -most, steps + 1).tolist()
    shrunk = math.hypot(1, math.exp(grid[0]))
    y = x0.double() / shrunk
    change = y.new_full((len(y),), -dimensions * math.log(shrunk))
    for s, target in pairwise(grid):
        h = target - s
        v1, div1 = flow(y, s)
        v2, div2 = flow(y + h / 2 * v1, s + h / 2)
        v3, div3 = flow(y + h / 2 * v2, s + h / 2)
        v4, div4 = flow(y + h * v3, target)
        y = y + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        change = change + h / 6 * (div1 + 2 * div2 + 2 * div3 + div4)
        on_step()
    return _prior(y, spec) + change


def _flow(
    network: Network, spec: ModelSpec, directions: list[Tensor], y: Tensor, s: float
) -> tuple[Tensor, Tensor]:
    """Return dy/ds [N, *S] and its divergence [N]."""
    scale = math.hypot(1, math.exp(s))
    a, dimensions = 1 / scale, y[0].numel()
    level = float(spec.schedule.find(-s))
    denoised, trace = torch.zeros_like(y), y.new_zeros(len(y))
    for known, weight in _known_levels(spec, level):
        d, slope = _denoised(network, spec, directions, scale * y, known)
        denoised, trace = denoised + weight * d, trace + weight * slope
    return a * (a * y - denoised), a * (a * dimensions - scale * trace)


def _known_levels(spec: ModelSpec, level: float) -> list[tuple[float, float]]:
    """Return the levels at which to evaluate the network, and their weights."""
    low = math.floor(level)
    if spec.cond != "level" or level == low:
        return [(level, 1.0)]
    return [(low, 1 - (level - low)), (low + 1, level - low)]


def _denoised(
    network: Network, spec: ModelSpec, directions: list[Tensor], u: Tensor, level: float
) -> tuple[Tensor, Tensor]:
    """Return D [N, *S] at x = alpha * u, and the trace of dD/du [N]."""
    alpha = float(spec.schedule.at(level)[0])
    c_in, c_skip, c_out = (float(value) for value in spec.coefficients(level))
    dtype = directions[0].dtype
    cond = torch.full((len(u),), float(spec.conds(level)), dtype=dtype, device=u.device)
    with torch.enable_grad():
        inputs = (c_in * alpha * u).to(dtype).requires_grad_()
        output = network(inputs, cond)
        if spec.learned_variance:
            output = output.chunk(2, 1)[0]
    trace = u.new_zeros(len(u))
    for v in directions:
        (product,) = torch.autograd.grad(output, inputs, v, retain_graph=True)
        trace += (product * v).double().flatten(1).sum(1) / len(directions)
    denoised = c_skip * alpha * u + c_out * output.detach()
    return denoised, alpha * (c_skip * u[0].numel() + c_out * c_in * trace)


def _directions(x0: Tensor, probes: int, seed: int, samples: Indices) -> Iterator[Tensor]:
    """Yield vectors v like x0; the mean of v^T J v estimates the trace of J, or is it exactly."""
    if probes == 0:
        dimensions = x0[0].numel()
        for axis in torch.eye(dimensions).to(x0) * math.sqrt(dimensions):
            yield axis.view(x0.shape[1:]).expand_as(x0)
    for probe in range(probes):
        draw, count = _PROBES + probe, x0[0].numel()
        words = philox.words(seed, philox.EVAL_LIKELIHOOD, draw, samples, count)
        signs = torch.from_numpy(np.where(words >> np.uint32(31), 1.0, -1.0))
        yield signs.to(x0).view(x0.shape)


def _prior(y: Tensor, spec: ModelSpec) -> Tensor:
    """Return the log density of y at the most noise, in nats; [N]."""
    alpha, sigma = float(spec.schedule.alpha[-1]), float(spec.schedule.sigma[-1])
    std = 1.0 if spec.schedule.variance_preserving else sigma / math.hypot(alpha, sigma)
    nats = 0.5 * (y / std).square() + math.log(std) + 0.5 * math.log(2 * math.pi)
    return -nats.flatten(1).sum(1)
