"""Summarize a classifier's answers for samples: its confidence, and the balance of classes."""

from typing import Final, NamedTuple

import numpy as np

from difftool.evaluate.distances import Floats

SURE: Final = 0.9  # the least probability that counts as sure


class Classes(NamedTuple):
    """A summary of a classifier's answers.

    - `sure`: the share of samples with a class of probability SURE or more
    - `confidence`: the mean probability of the likeliest class
    - `shares` [K]: the share of samples for which each class is the likeliest
    """

    sure: float
    confidence: float
    shares: list[float]


def summarize_classes(probabilities: Floats) -> Classes:
    """Summarize probabilities [N, K] of N samples."""
    highest = probabilities.max(1)
    counts = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1])
    return Classes(
        sure=float((highest >= SURE).mean()),
        confidence=float(highest.mean()),
        shares=(counts / len(probabilities)).tolist(),
    )
