"""Edits steer a run: hooks on D, the denoised estimate.

An edit sees the D of every row and returns the one to go on with. A program meets its noise levels
for every D (see `difftool.diffusion.invariant`). So the part that an edit fixes has the right noise
at every level, whatever the sampler.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.errors import UsageError

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]

Edit = Callable[[Floats, Positions], Floats]
"""A function of D [N, *S] and each sample's position in the run [N]; it returns the revised D
[N, *S].
"""


@dataclass(frozen=True)
class Inpaint:
    """Known values that stay: D is `known` if `mask` is 1. See `inpaint`."""

    known: Floats
    mask: Floats

    def __call__(self, denoised: Floats, positions: Positions) -> Floats:
        known, mask = self.at(positions, denoised.shape[1:])
        return np.asarray(mask * known + (1 - mask) * denoised)

    def at(self, positions: Positions, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        """Return `known` and `mask` for the samples at these positions, each [N, *shape]."""
        return at_positions(self.known, positions, shape), at_positions(self.mask, positions, shape)


@dataclass(frozen=True)
class Colorize:
    """A known mean over the channels that stays. See `colorize`."""

    grey: Floats

    def __call__(self, denoised: Floats, positions: Positions) -> Floats:
        grey = at_positions(self.grey, positions, (1, *denoised.shape[2:]))
        return np.asarray(denoised + (grey - denoised.mean(axis=1, keepdims=True)))


def inpaint(known: ArrayLike, mask: ArrayLike) -> Inpaint:
    """Fill what is not known: the samples equal `known` at every number whose `mask` is 1.

    Both are [*S] for all samples or [n, *S], in the model's data range. This is the posterior
    sampling of Song et al. 2021b, section 5 and appendix I.2, but D is replaced instead of x, so
    that every sampler does it. `difftool.samplers.repaint` adds the resampling of Lugmayr et al.
    2022.
    """
    known, mask = np.asarray(known, np.float32), np.asarray(mask, np.float32)
    if not ((mask >= 0) & (mask <= 1)).all():
        raise UsageError("a mask is 1 where values are known and 0 elsewhere", "scale it to 0 .. 1")
    return Inpaint(known, mask)


def colorize(grey: ArrayLike) -> Colorize:
    """Colour grey images: the samples' mean over the channels equals `grey`.

    `grey` is [1, H, W] for all samples or [n, 1, H, W], in the model's data range. Grey and colour
    are orthogonal parts of an image, and one is known (Song et al. 2021b, appendix I.2).
    """
    return Colorize(np.asarray(grey, np.float32))


def at_positions(value: Floats, positions: Positions, shape: tuple[int, ...]) -> Floats:
    """Return `value` for the samples of `shape` at `positions`: its entries there, or all of it.

    UsageError if it is neither for one sample nor for all that are drawn.
    """
    if value.shape in (shape, (1, *shape)):
        return np.broadcast_to(value, (len(positions), *shape))
    if value.shape[1:] != shape:
        raise UsageError(
            f"values of shape {value.shape} for samples of {shape}",
            f"give {shape} for all samples, or one such for each",
        )
    if positions.max() >= len(value):
        raise UsageError(
            f"values for {len(value)} samples, and more are drawn",
            f"draw {len(value)}, or give one for all",
        )
    return value[positions]


def require_editable(program: Program, *, in_graph: bool) -> None:
    """Raise UsageError if a program does not take its D alone from the estimate that is edited.

    `in_graph` says that the step graph itself makes the edit, before it takes any norm.
    """
    if program.table[:, Column.G].any():
        raise UsageError(
            f"{program.name} uses the raw network beside the denoised estimate, which is edited",
            "use raw_epsilon=false",
        )
    if program.adaptive and not in_graph:
        raise UsageError(
            f"{program.name} adapts its steps to the estimate before the edit",
            "use the corrector of fixed steps",
        )
