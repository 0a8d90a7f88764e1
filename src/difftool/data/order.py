"""The order of a training's data: a pure function of seed and step."""

import functools

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion import noise

Indices = NDArray[np.int64]


def batch_indices(seed: int, step: int, batch: int, slots: Indices, size: int) -> Indices:
    """Return the indices of the items, of `size` in all, that fill `slots` at `step`; int64 [N].

    Every epoch is a permutation of its own. A batch may span two or more epochs.
    """
    positions = step * batch + slots
    epochs, places = positions // size, positions % size
    items = np.empty_like(positions)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        items[chosen] = _order(seed, int(epoch), size)[places[chosen]]
    return items


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> Indices:
    # Sorting random words gives a random permutation; equal words keep their order everywhere.
    drawn = noise.words(seed, noise.TRAIN_ORDER, epoch, np.arange(size), 1)[:, 0]
    return np.argsort(drawn, kind="stable")
