"""The sets that `difftool eval` compares: pixels of images, or points in the plane."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool import data
from difftool.errors import UsageError

Set = NDArray[Any]  # pixels uint8 [N, H, W, C], or points float64 [N, 2]

_TOY_POINTS: Final = 5_000
_FIRST_TOY_POINT: Final = 1 << 31  # no training has as many, so the points are unseen


def read_data(source: str, like: tuple[int, ...]) -> Set:
    """The data that samples of a shape, [H, W, C] or [2], are compared with.

    An npz file, or whatever a training can read; images are cropped, scaled and converted to the
    samples' size as a training does it.
    """
    if source.endswith(".npz"):
        return data.read_samples(Path(source))
    if source in data.toys.TOYS:
        indices = np.arange(_FIRST_TOY_POINT, _FIRST_TOY_POINT + _TOY_POINTS)
        return data.toys.points(source, 0, indices).astype(np.float64)
    if len(like) != 3:
        raise UsageError(
            f"{source} holds images, and the samples are points",
            f"compare them with an npz file or one of: {', '.join(data.toys.TOYS)}",
        )
    height, width, channels = like
    size = height if height == width else None
    mode = "L" if channels == 1 else "RGB"
    return data.load(source, size=size, mode=mode).values.transpose(0, 2, 3, 1)
