"""Reading samples and grading them."""

from pathlib import Path

import numpy as np
import pytest
from quality import digits, graded

from difftool.errors import UsageError
from difftool.evaluate.comparison import compare_images
from difftool.evaluate.extractor import View


def test_a_grade_counts_sure_samples_and_digits() -> None:
    features = np.random.default_rng(0).normal(size=(8, 2))
    probabilities = np.zeros((8, 10))
    answers = [(3, 0.95), (3, 0.89), (3, 0.91), (7, 0.5)] * 2
    for row, (digit, probability) in enumerate(answers):
        probabilities[row] = (1 - probability) / 9
        probabilities[row, digit] = probability
    view = View(features, probabilities)
    figures = graded("x", compare_images(view, view), 0.5, 0.05, 0.16)
    assert [figure.name for figure in figures] == [
        "x: sure",
        "x: rarest digit, 0",
        "x: commonest digit, 3",
        "x: Frechet distance",
    ]
    assert [figure.median for figure in figures[:3]] == [0.5, 0, 0.75]
    assert figures[3].median == pytest.approx(0, abs=1e-9)
    assert [figure.verdict for figure in figures] == ["pass", "FAIL", "FAIL", ""]


def test_samples_are_read_as_the_runtime_writes_them(tmp_path: Path) -> None:
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28, 1)
    path = tmp_path / "samples.npz"
    np.savez(path, images=images)
    np.testing.assert_array_equal(digits("ddpm", path, 1), images[:1])
    with pytest.raises(UsageError, match="no target"):
        digits("gan", path, 1)
    with pytest.raises(UsageError, match="draw 3"):
        digits("ddpm", path, 3)
