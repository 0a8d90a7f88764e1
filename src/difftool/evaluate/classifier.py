"""What a classifier says of samples: how sure it is of them, and how evenly the classes come."""

from typing import Final, NamedTuple

import numpy as np

from difftool.evaluate.distances import Floats

SURE: Final = 0.9  # the probability from which on a classifier is sure


class Classes(NamedTuple):
    """`sure` is the share of samples that one class has with a probability of at least SURE.

    `confidence` is the mean probability of the likeliest class, `shares` [K] of samples each class
    is the likeliest of.
    """

    sure: float
    confidence: float
    shares: list[float]


def classes_of(probabilities: Floats) -> Classes:
    """What probabilities [N, K] say of N samples."""
    highest = probabilities.max(1)
    counts = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1])
    return Classes(
        sure=float((highest >= SURE).mean()),
        confidence=float(highest.mean()),
        shares=(counts / len(probabilities)).tolist(),
    )
