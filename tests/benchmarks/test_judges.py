"""Two judges' rankings, and the set that is broken on purpose."""

import numpy as np
import pytest
from judges import agreement, broken


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ([0.98, 0.9, 0.5], [0.8, 0.7, 0.1], 1.0),
        ([0.98, 0.9, 0.5], [0.7, 0.8, 0.1], 2 / 3),
        ([0.98, 0.9, 0.5], [0.1, 0.7, 0.8], 0.0),
        ([0.98, 0.9, 0.5], [0.700, 0.701, 0.1], 1.0),  # the second cannot tell the first two apart
        ([1.0, 1.0, 1.0], [0.3, 0.2, 0.1], 1.0),  # nothing is told apart by both
    ],
)
def test_pairs_that_both_tell_apart_are_compared(
    one: list[float], other: list[float], share: float
) -> None:
    assert agreement(one, other) == pytest.approx(share)
    assert agreement(other, one) == pytest.approx(share)


def test_a_broken_digit_has_halves_of_two() -> None:
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(4, 1)
    assert broken(images)[..., 0, 0].tolist() == [[0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 0, 0]]
