"""Confidence and class balance, counted by hand."""

import numpy as np
import pytest

from difftool.evaluate.classifier import summarize_classes


def test_classes_are_counted() -> None:
    found = summarize_classes(
        np.array([[0.9, 0.1, 0], [0.5, 0.4, 0.1], [0.05, 0.95, 0], [0.3, 0.3, 0.4]])
    )
    assert found.sure == 0.5
    assert found.confidence == pytest.approx((0.9 + 0.5 + 0.95 + 0.4) / 4)
    assert found.shares == [0.5, 0.25, 0.25]


def test_a_class_that_never_comes_has_its_share_too() -> None:
    assert summarize_classes(np.array([[1.0, 0, 0]])).shares == [1, 0, 0]
