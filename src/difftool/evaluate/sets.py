"""Read the data for a comparison: pixels of images, or points in the plane."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool import data
from difftool.errors import UsageError

Samples = NDArray[Any]
"""Pixels uint8 [N, H, W, C], or points float64 [N, 2]."""

_TOY_POINTS: Final = 5_000
_FIRST_TOY_POINT: Final = 1 << 31  # beyond any training's points, so that these are unseen


def read_data(source: str, like: tuple[int, ...]) -> Samples:
    """Read data to compare with samples of the shape `like`, [H, W, C] or [2].

    `source` is an npz file or a folder of samples, or a source for `difftool.data.load`. Images are
    cropped, scaled and converted to the samples' size, as for training.

    Raises:
        UsageError: there is no such data, or it has another kind or shape than the samples.
        ArtefactError: the file is damaged.
    """
    if source.endswith(".npz"):
        found = data.read_samples(Path(source))
    elif source in data.toys.TOYS:
        indices = np.arange(_FIRST_TOY_POINT, _FIRST_TOY_POINT + _TOY_POINTS)
        found = data.toys.points(source, 0, indices).astype(np.float64)
    elif len(like) == 3:
        height, width, channels = like
        size = height if height == width else None
        mode = "L" if channels == 1 else "RGB"
        found = data.load(source, size=size, mode=mode).values.transpose(0, 2, 3, 1)
    elif Path(source).is_dir():
        found = data.read_samples(Path(source))
    else:
        raise UsageError(
            f"{source} holds images, and the samples are points",
            f"compare them with an npz file or one of: {', '.join(data.toys.TOYS)}",
        )
    if found.shape[1:] != like:
        raise UsageError(
            f"one sample has the shape {like}, and one of {source} the shape {found.shape[1:]}",
            "compare samples with the data that the model was trained on",
        )
    return found
