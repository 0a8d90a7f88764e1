"""Turn samples into pictures."""

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError


def is_image(spec: ModelSpec) -> bool:
    """Tell if samples are images: (C, H, W) with 1 or 3 channels, in a known range."""
    return len(spec.shape) == 3 and spec.shape[0] in (1, 3) and spec.data_range is not None


def to_uint8(samples: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.uint8]:
    """Turn samples float32 [N, C, H, W] into pixels uint8 [N, H, W, C].

    The data range becomes 0 .. 255.

    UsageError if the model's samples are not images.
    """
    if spec.data_range is None or not is_image(spec):
        raise UsageError(f"samples of shape {spec.shape} are not images", "use npy or npz")
    low, high = spec.data_range
    levels = (samples - low) * np.float32(255 / (high - low))
    pixels = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def grid(
    pixels: NDArray[np.uint8], *, columns: int | None = None, padding: int = 2
) -> NDArray[np.uint8]:
    """Lay pixels uint8 [N, H, W, C] out on one white sheet [height, width, C], row by row.

    It has as many columns as rows, or one more, if no number of `columns` is given. `padding` is
    the number of pixels between the images and around them.
    """
    count, height, width, channels = pixels.shape
    columns = columns or _columns(count)
    size = grid_size(count, height, width, columns=columns, padding=padding)
    down, across = height + padding, width + padding
    sheet = np.full((*size, channels), 255, np.uint8)
    for index, image in enumerate(pixels):
        y, x = padding + index // columns * down, padding + index % columns * across
        sheet[y : y + height, x : x + width] = image
    return sheet


def grid_size(
    count: int, height: int, width: int, *, columns: int | None = None, padding: int = 2
) -> tuple[int, int]:
    """Return height and width of the sheet that `grid` makes of so many images of a size."""
    columns = columns or _columns(count)
    rows = -(-count // columns)
    return rows * (height + padding) + padding, columns * (width + padding) + padding


def _columns(count: int) -> int:
    return int(np.ceil(np.sqrt(count)))
