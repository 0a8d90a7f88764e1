"""Read image files to pixels of one shape."""

import hashlib
import io
import threading
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from difftool.errors import UsageError, quoted, short

Pixels = NDArray[np.uint8]

_MORE_THAN_BYTES: Final = ("I", "F")  # Pillow's modes of numbers of 16 bits and more
_USUAL: Final = 6  # the binary logarithm of the largest size that an error offers
_ALONE: Final = threading.Lock()  # what catches warnings does so for all threads


def stack(
    encoded: Iterable[Any], source: str, size: int | None, mode: str | None
) -> tuple[Pixels, str]:
    """Return all images as uint8 [N, C, H, W], and the digest of their files.

    An image is a dict of `bytes` and `path`. UsageError if they differ in shape.
    """
    images: list[Pixels] = []
    whole = hashlib.sha256()
    for index, item in enumerate(encoded):
        try:
            data = item["bytes"] or Path(item["path"]).read_bytes()
        except (OSError, TypeError, ValueError) as error:  # such as neither bytes nor a path
            raise _unreadable(item, index, source) from error
        whole.update(hashlib.sha256(data).digest())
        try:
            name = f"image {index} of {quoted(source)}"
            images.append(decode(data, name, (size, size) if size is not None else None, mode))
        except UsageError:
            raise
        except Exception as error:  # Pillow's decoders may raise anything
            raise _unreadable(item, index, source) from error
    if not images:
        raise UsageError(f"there are no images in {quoted(source)}", "give another folder or file")
    for index, image in enumerate(images):
        if image.shape != images[0].shape:
            raise UsageError(
                f"image 0 of {quoted(source)} is {_describe(images[0])}, "
                f"but image {index} is {_describe(image)}",
                f"give {_uniform(images)}, which makes them all alike",
            )
    return np.stack(images), whole.hexdigest()


def decode(
    data: bytes,
    name: str,
    size: tuple[int, int] | None,
    mode: str | None,
    *,
    exact: bool = False,
) -> Pixels:
    """Decode an image file to uint8 [C, H, W], turned as its camera says.

    `size` is a width and a height to scale and crop to. With `exact` the file must be a PNG of this
    very size, which is looked at before the pixels are unpacked. UsageError if it has another size,
    if it has more than 8 bits a channel, or if `mode` is None and its own mode is neither L nor
    RGB. Pillow's own errors pass if it cannot read the file or finds it too large.
    """
    with _ALONE, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's advice is not for our users
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data), formats=["PNG"] if exact else None) as file:
            if exact and file.size != size:
                raise UsageError(f"{name} has {file.width}x{file.height} pixels", "scale it")
            if file.mode.startswith(_MORE_THAN_BYTES):  # Pillow would clip these at 255
                raise UsageError(
                    f"{name} has more than 8 bits a channel: its mode is {quoted(file.mode)}",
                    "save it with 8 bits",
                )
            mode = mode or ("L" if file.mode == "1" else file.mode)
            if mode not in ("L", "RGB"):
                plain = "L" if mode.startswith("L") else "RGB"
                raise UsageError(f"{name} has mode {quoted(mode)}", f"give `mode={plain}`")
            image = ImageOps.exif_transpose(file).convert(mode)
        if size is not None:
            image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def prepared(
    values: ArrayLike, data_range: Sequence[float] | None, dither: ArrayLike | None = None
) -> NDArray[np.float32]:
    """Scale uint8 values to a model's data range, [0, 1] by default, as float32; points stay.

    `dither`, uniform in (0, 1] and of the same shape, spreads each grey level evenly over 1/256.
    """
    values = np.asarray(values)
    if values.dtype != np.uint8:
        return values.astype(np.float32, copy=False)
    x: NDArray[Any] = values.astype(np.float32)
    # With dither there are 256 cells of equal width; without it 0 and 255 are the range's ends.
    x = x / 255 if dither is None else (x + np.asarray(dither, np.float32)) / 256
    low, high = data_range or (0.0, 1.0)
    return np.asarray(x * np.float32(high - low) + np.float32(low))


def _unreadable(item: Any, index: int, source: str) -> UsageError:
    name = (item and item["path"]) or f"image {index}"
    return UsageError(
        f"cannot read {short(str(name), 100)} of {quoted(source)}",
        "give a whole image of a usual size",
    )


def _uniform(images: Sequence[Pixels]) -> str:
    """Return the arguments that make images alike: a size for a small network, and the mode."""
    settings = []
    if len({image.shape[1:] for image in images}) > 1:
        least = min(min(image.shape[1:]) for image in images)
        settings.append(f"`size={1 << min(least.bit_length() - 1, _USUAL)}`")
    if len({len(image) for image in images}) > 1:
        settings.append("`mode=RGB`")
    return " and ".join(settings)


def _describe(image: Pixels) -> str:
    channels, height, width = image.shape
    return f"{width}x{height} {'L' if channels == 1 else 'RGB'}"
