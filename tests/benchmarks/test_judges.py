"""Two judges' rankings, and the set that is broken on purpose."""

import numpy as np
import pytest
from judges import LIMITS, agreement, broken, graded

from difftool.evaluate.comparison import compare_images
from difftool.evaluate.extractor import View


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


def test_a_grade_counts_sure_samples_and_digits() -> None:
    features = np.random.default_rng(0).normal(size=(8, 2))
    probabilities = np.zeros((8, 10))
    answers = [(3, 0.95), (3, 0.89), (3, 0.91), (7, 0.5)] * 2
    for row, (digit, probability) in enumerate(answers):
        probabilities[row] = (1 - probability) / 9
        probabilities[row, digit] = probability
    near, far = View(features, probabilities), View(features + 1, probabilities)
    data = View(features - 1, probabilities)
    one, twice = compare_images(near, data), compare_images(far, data)
    seen = {"real": one, "default program": twice, "20 evaluations": one}
    figures = graded("ddpm-mnist", seen)
    assert [figure.median for figure in figures[:3]] == [0.5, 0, 0.75]
    assert [figure.median for figure in figures[3:]] == pytest.approx([4, 1])
    assert [figure.verdict for figure in figures] == ["FAIL"] * 4 + ["pass"]
    assert [figure.limit for figure in figures][:1] == [f"at least {LIMITS['ddpm-mnist'][0]:g}"]
