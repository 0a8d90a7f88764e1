"""The meaning of a network's raw output F: coefficients that turn it into the estimate D of x0."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PARAMETERIZATIONS = ("epsilon", "x0", "v", "score", "scaled_score", "edm")


class Coefficients(NamedTuple):
    """The coefficients of D = c_skip * x + c_out * network(c_in * x, cond), float64 [R] each."""

    c_in: Array
    c_skip: Array
    c_out: Array


def coefficients(
    parameterization: str, alpha: Array, sigma: Array, sigma_data: float = 0.5
) -> Coefficients:
    """Return the coefficients at levels (alpha, sigma), according to the network's prediction.

    - epsilon: the noise (Ho et al. 2020); x0: the sample itself
    - v: alpha * epsilon - sigma * x0 (Salimans and Ho 2022)
    - score: the gradient of the log density (Song and Ermon 2019)
    - scaled_score: sigma * score, the raw output of NCSNv2 (Song and Ermon 2020, technique 3)
    - edm: the preconditioned network (Karras et al. 2022, table 1), for data of std `sigma_data`
    """
    one, zero = np.ones_like(sigma), np.zeros_like(sigma)
    if parameterization == "epsilon":
        return Coefficients(one, 1 / alpha, -sigma / alpha)
    if parameterization == "x0":
        return Coefficients(one, zero, one)
    if parameterization == "v":
        total = alpha**2 + sigma**2
        return Coefficients(one, alpha / total, -sigma / total)
    if parameterization == "score":
        return Coefficients(one, 1 / alpha, sigma**2 / alpha)
    if parameterization == "scaled_score":
        return Coefficients(one, 1 / alpha, sigma / alpha)
    if parameterization == "edm":
        ratio = sigma / alpha  # EDM is written for x / alpha, whose noise has this std
        total = ratio**2 + sigma_data**2
        return Coefficients(
            1 / (alpha * np.sqrt(total)),
            sigma_data**2 / (alpha * total),
            ratio * sigma_data / np.sqrt(total),
        )
    raise ValueError(parameterization)  # `ModelSpec` has refused it
