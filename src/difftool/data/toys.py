"""Two-dimensional toy densities: point i is a pure function of (name, seed, i)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion import noise

Points = NDArray[np.float32]
# A toy maps uniforms u [N, 2] in (0, 1] and normals z [N, 2] to points [N, 2].
Toy = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def gaussians(u: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw 1/5 N((-5, -5), I) + 4/5 N((5, 5), I) (Song and Ermon 2019, section 3.2.2)."""
    return np.where(_gaussian_part(u)[:, None] == 0, -5.0, 5.0) + z


def _gaussian_part(u: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return 0 for points of the smaller Gaussian, 1 for the larger."""
    return (u[:, 0] >= 0.2).astype(np.int64)


def swiss_roll(u: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw a spiral of one and a half turns, out to radius 5."""
    angle = 1.5 * np.pi * (1 + 2 * u[:, 0])
    radius = angle / (4.5 * np.pi) * 5
    return radius[:, None] * _direction(angle) + 0.1 * z


def moons(u: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw two interleaved half circles of radius 3."""
    upper = _moon_part(u)[:, None] == 0
    arc = 3 * _direction(np.pi * u[:, 0])
    return np.where(upper, arc - (1.5, 0.75), (1.5, 0.75) - arc) + 0.1 * z


def _moon_part(u: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return 0 for points of the upper half circle, 1 for the lower."""
    return (u[:, 1] >= 0.5).astype(np.int64)


def checkerboard(u: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw the dark squares of a 4x4 board on [-4, 4]^2, uniformly."""
    x = 8 * u[:, 0] - 4
    # y begins in the two squares [-4, -2) and [-2, 0). They are moved apart, and up in odd columns.
    y = 4 * u[:, 1] - 4
    y = y + 2 * (y >= -2) + 2 * (np.floor(x / 2) % 2)
    return np.stack((x, y), axis=1)


def rings(u: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw four concentric circles of radius 1, 2, 3 and 4."""
    radius = 1 + _ring_part(u)[:, None]
    return radius * _direction(2 * np.pi * u[:, 1]) + 0.08 * z


def _ring_part(u: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return 0 for points of the innermost circle, to 3 for the outermost."""
    return np.ceil(4 * u[:, 0]).astype(np.int64) - 1


TOYS: Mapping[str, Toy] = {
    "gaussians": gaussians,
    "swiss_roll": swiss_roll,
    "moons": moons,
    "checkerboard": checkerboard,
    "rings": rings,
}
# For toys of several parts: the function that tells a point's part.
LABELS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.int64]]] = {
    "gaussians": _gaussian_part,
    "moons": _moon_part,
    "rings": _ring_part,
}


def points(name: str, seed: int, indices: NDArray[np.int64]) -> Points:
    """Return points `indices` [N] of a toy; float32 [N, 2]."""
    draw = 2 * list(TOYS).index(name) + 1
    z = noise.normal(seed, draw, indices, (2,), stream=noise.DATA)
    return TOYS[name](_uniform(name, seed, indices), z.astype(np.float64)).astype(np.float32)


def labels(name: str, seed: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the parts to which points `indices` [N] of a toy of `LABELS` belong; [N]."""
    return LABELS[name](_uniform(name, seed, indices))


def _uniform(name: str, seed: int, indices: NDArray[np.int64]) -> NDArray[np.float64]:
    draw = 2 * list(TOYS).index(name)
    return noise.uniform(seed, draw, indices, (2,), stream=noise.DATA).astype(np.float64)


def _direction(angle: Any) -> NDArray[np.float64]:
    return np.stack((np.cos(angle), np.sin(angle)), axis=-1)
