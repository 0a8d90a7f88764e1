"""The likelihood of data under a model, by the change of variables along its probability-flow ODE.

The ODE (Song et al. 2021b, "Score-Based Generative Modeling through SDEs", eq. 13) moves data to
noise, and its divergence is the rate at which the log density falls (eq. 39). VP and VE models are
integrated alike, as y = x / sqrt(alpha^2 + sigma^2) over s = -half_log_snr:

    dy/ds = a * (a * y - D)      div = a * (a * dimensions - tr(dD/dy))
    a = alpha / sqrt(alpha^2 + sigma^2)

Both are bounded at both ends: D is near y where there is little noise, and a near 0 where there is
much. They are integrated with Runge and Kutta's method of order 4 in even steps of s. A step size
that adapts, as score_sde takes it from scipy's RK45, follows the error of a whole batch, so that
a sample's likelihood would depend on its neighbours. To see the error, double the steps.

Whose density is it? That of what the exact ODE makes of noise:

- At the most noise x is N(0, I) for a VP model and N(0, sigma_max^2) for a VE one, as samplers
  start. If sigma_max is small the data's own variance shows, and this prior costs something.
- At the least noise x / alpha is the sample, noise included: the density is that of the data
  blurred by sigma_min / alpha. score_sde does so at its eps.
- D is not clipped; with learned variances the variance has no part in it.
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

from difftool.diffusion import noise as philox
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.train.losses import Network

STEPS: Final = 50  # on MNIST 3e-4 bits/dim from 100, in the mean

_GREY: Final = 256
_DITHER, _PROBES = 0, 1  # draws of the stream; every probe takes one more

Indices = NDArray[np.int64]
Progress = Callable[[], None]


def network_of(module: nn.Module, spec: ModelSpec) -> Network:
    """A checkpoint's network as a function of x and cond; one with classes is told of none.

    UsageError if it was trained with labels only: no density without them is known to it.
    """
    if spec.classes and not spec.null_label:
        raise UsageError(
            "this model knows the density of each class, and none of all together",
            "train with label_dropout",
        )

    def network(x: Tensor, cond: Tensor) -> Tensor:
        labels = [torch.full_like(cond, spec.classes, dtype=torch.int64)] if spec.classes else []
        output: Tensor = module(x, module.condition(cond, *labels))  # type: ignore[operator]
        return output

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
    on_step: Progress | None = None,
) -> Tensor:
    """The negative log likelihood of images uint8 [N, *S], in bits per dimension; float64 [N].

    Grey level g is spread evenly over (g, g + 1] / 256 of the data range. The density's mean over
    that cell bounds the model's mass on g from below (Theis et al. 2016, section 3.1), so this is
    an upper bound in the mean; one point of each cell is drawn. Arguments and errors are those of
    `log_likelihood`.
    """
    indices = np.arange(len(images)) if samples is None else samples
    low, high = spec.data_range or (0.0, 1.0)  # as training scales them
    x0 = dequantized(images, (low, high), seed, indices)
    nats = log_likelihood(
        network, x0, spec, steps=steps, probes=probes, seed=seed, samples=indices, on_step=on_step
    )
    return -(nats / x0[0].numel() + math.log((high - low) / _GREY)) / math.log(2)


def dequantized(
    images: Tensor, data_range: tuple[float, float], seed: int, samples: Indices
) -> Tensor:
    """Images uint8 [N, *S] on `data_range`, each grey level spread over its cell; float32."""
    unit = philox.uniform(
        seed, _DITHER, samples, tuple(images.shape[1:]), stream=philox.EVAL_LIKELIHOOD
    )
    low, high = data_range
    return (images + torch.from_numpy(unit).to(images.device)) / _GREY * (high - low) + low


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
    on_step: Progress | None = None,
) -> Tensor:
    """log p(x0) of data [N, *S], in nats; float64 [N].

    The state is float64, and the network computes in x0's dtype; four evaluations a step. The
    divergence is Hutchinson's estimate (eq. 40) from `probes` random signs, one backward pass each;
    they stay the same along the way. `probes` 0 takes the exact trace, one backward pass a
    dimension. `samples` [N] number the samples, 0 .. N - 1 by default: equal seed and number give
    equal probes in any batch.

    A network of labelled levels (cond "level") knows none between: there D is interpolated from
    the two levels beside, linearly in half_log_snr.

    Raises:
        UsageError: steps or probes that are none, or a model with a single noise level.
    """
    least, most = spec.schedule.half_log_snr[[0, -1]].tolist()
    if steps < 1 or probes < 0:
        raise UsageError(
            f"{steps} steps with {probes} probes",
            "use at least 1 step; 0 probes is the exact trace",
        )
    if least == most:
        raise UsageError(
            "a likelihood needs a way to noise, and this model has a single level",
            "train with more levels",
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
        if on_step is not None:
            on_step()
    return _prior(y, spec) + change


def _flow(
    network: Network, spec: ModelSpec, directions: list[Tensor], y: Tensor, s: float
) -> tuple[Tensor, Tensor]:
    """dy/ds [N, *S] and its divergence [N]."""
    scale = math.hypot(1, math.exp(s))
    a, dimensions = 1 / scale, y[0].numel()
    level = float(spec.schedule.find(-s))
    denoised, trace = torch.zeros_like(y), y.new_zeros(len(y))
    for beside, weight in _beside(spec, level):
        d, slope = _denoised(network, spec, directions, scale * y, beside)
        denoised, trace = denoised + weight * d, trace + weight * slope
    return a * (a * y - denoised), a * (a * dimensions - scale * trace)


def _beside(spec: ModelSpec, level: float) -> list[tuple[float, float]]:
    """The levels that the network is evaluated at for one, and their weights."""
    low = math.floor(level)
    if spec.cond != "level" or level == low:
        return [(level, 1.0)]
    return [(low, 1 - (level - low)), (low + 1, level - low)]


def _denoised(
    network: Network, spec: ModelSpec, directions: list[Tensor], u: Tensor, level: float
) -> tuple[Tensor, Tensor]:
    """D [N, *S] at x = alpha * u, and the trace of dD/du [N]."""
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
    """Vectors like x0 whose mean of v^T J v is the trace of J: in the mean, or exactly."""
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
    """The log density of y at the most noise, in nats; [N]."""
    alpha, sigma = float(spec.schedule.alpha[-1]), float(spec.schedule.sigma[-1])
    std = 1.0 if spec.schedule.variance_preserving else sigma / math.hypot(alpha, sigma)
    nats = 0.5 * (y / std).square() + math.log(std) + 0.5 * math.log(2 * math.pi)
    return -nats.flatten(1).sum(1)
