"""Every epoch goes through all data, in an order that seed and step alone decide."""

import numpy as np
import pytest

from difftool.data import batch_indices

SLOTS = np.arange(12)


@pytest.mark.parametrize("size", [5, 12, 31])
def test_every_epoch_is_a_permutation_of_its_own(size: int) -> None:
    batches = [batch_indices(7, step, 12, SLOTS, size) for step in range(3 * size)]
    epochs = np.concatenate(batches).reshape(-1, size)
    assert (np.sort(epochs, axis=1) == np.arange(size)).all()
    assert len({tuple(epoch) for epoch in epochs}) > len(epochs) * 0.9


def test_order_depends_on_seed_and_step_only() -> None:
    late = batch_indices(7, 40, 12, SLOTS, 100)
    for step in (3, 90, 40):
        again = batch_indices(7, step, 12, SLOTS, 100)
    assert (again == late).all()
    assert (batch_indices(8, 40, 12, SLOTS, 100) != late).any()


def test_an_order_is_the_same_however_a_batch_is_split() -> None:
    parts = [batch_indices(7, 4, 12, part, 50) for part in np.split(SLOTS, 3)]
    assert np.array_equal(np.concatenate(parts), batch_indices(7, 4, 12, SLOTS, 50))
