"""The randomness of a training as pure functions of (seed, step, slot), except the data's order.

A slot is a sample's place in the batch of all processes together. So a batch is the same for any
split over processes and micro-batches, and resuming at a step needs no generator state.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difftool.diffusion import noise

Indices = NDArray[np.int64]


def normal(seed: int, step: int, slots: Indices, shape: tuple[int, ...]) -> Tensor:
    """Return the noise of a step: standard normal float32 [slots, *shape]."""
    return torch.from_numpy(noise.normal(seed, step, slots, shape, stream=noise.TRAIN_NOISE))


def levels(seed: int, step: int, slots: Indices, count: int) -> Tensor:
    """Return noise levels, uniform over 0 .. count - 1; int64 [slots]."""
    drawn = noise.words(seed, noise.TRAIN_LEVEL, step, slots, 1)[:, 0].astype(np.uint64)
    return torch.from_numpy((drawn * np.uint64(count) >> np.uint64(32)).astype(np.int64))


def choices(seed: int, step: int, slots: Indices, weights: NDArray[np.float64]) -> Indices:
    """Return indices of `weights`, drawn in proportion to them; int64 [slots]."""
    drawn = noise.words(seed, noise.TRAIN_LEVEL, step, slots, 1)[:, 0]
    bounds = np.cumsum(weights)[:-1] / np.sum(weights)
    return np.searchsorted(bounds, drawn / 2**32, side="right")


def flips(seed: int, step: int, slots: Indices) -> Tensor:
    """Return fair coins; bool [slots]."""
    drawn = noise.words(seed, noise.TRAIN_AUGMENT, step, slots, 1)[:, 0]
    return torch.from_numpy(drawn >> np.uint32(31) == 1)


def drops(seed: int, step: int, slots: Indices, probability: float) -> Tensor:
    """Return True, with this probability, if a sample loses its label; bool [slots]."""
    drawn = noise.words(seed, noise.TRAIN_LABEL, step, slots, 1)[:, 0]
    return torch.from_numpy(drawn < probability * 2**32)


def dither(seed: int, step: int, slots: Indices, shape: tuple[int, ...]) -> Tensor:
    """Return dequantization noise: uniform float32 [slots, *shape] in (0, 1]."""
    return torch.from_numpy(noise.uniform(seed, step, slots, shape, stream=noise.TRAIN_DITHER))


def projections(seed: int, step: int, slots: Indices, shape: tuple[int, ...]) -> Tensor:
    """Return directions of sliced score matching: standard normal float32 [slots, *shape]."""
    return torch.from_numpy(noise.normal(seed, step, slots, shape, stream=noise.TRAIN_PROJECTION))


def torch_seed(seed: int, step: int, process: int) -> int:
    """Return the seed of torch's own generator, which only dropout uses, for a step and process."""
    low, high = noise.words(seed, noise.TRAIN_DROPOUT, step, [process], 2)[0].tolist()
    return low | high << 32
