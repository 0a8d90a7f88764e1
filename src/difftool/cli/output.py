"""Samples as a file: its format and its bytes. Equal samples give equal bytes."""

import io
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difftool.cli.options import Format
from difftool.diffusion import ModelSpec
from difftool.errors import UsageError
from difftool.runtime import State, grid, grid_size, is_image, to_uint8

_MOMENTS: Final = 50  # frames of a gif
_FRAME_MS, _LAST_FRAME_MS = 80, 2000
PICTURES: Final = (Format.PNG, Format.WEBP, Format.GIF)

_SEEN: Final = 112  # screen pixels of a sample that are enough to see it
_SHEET: Final = 2048  # pixels of a side beyond which a sheet is not enlarged by default
_MOST: Final = 16_383  # pixels of a side in a WebP
_ALL: Final = slice(None)
_FRAME: Final = 2  # pixels around each sample of a sheet, which grow with its scale
_WIDEST: Final = 8  # until they are so many

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def choose_format(
    wanted: Format | None, out: Path | None, spec: ModelSpec, *, each: bool = False
) -> Format:
    """Return the wanted format, or else that of `out`.

    If both are None: png for images, and npz for other samples. UsageError if samples have no such
    format, or if `each` is to have a file, and the format holds all of them.
    """
    if wanted is None and out is not None:
        suffix = out.suffix.lower().removeprefix(".")
        if suffix not in list(Format):
            known = ", ".join(f".{name}" for name in Format)
            raise UsageError(f"{out} names no format", f"end it in {known}; or give --format")
        wanted = Format(suffix)
    if wanted in PICTURES and not is_image(spec):
        raise UsageError(f"samples of shape {spec.shape} are not images", "use npy or npz")
    if wanted is Format.PARQUET and each:
        raise UsageError("a Parquet file holds all samples", "give --out the name of a file")
    if wanted is Format.PARQUET:
        from difftool.scale import require_parquet

        require_parquet()  # before any sample is drawn
    return wanted or (Format.PNG if is_image(spec) else Format.NPZ)


def choose_scale(
    wanted: int | None, format: Format, n: int, spec: ModelSpec, *, each: bool = False
) -> int:
    """Return by how much pixels are enlarged: `wanted`, or as much as makes a sheet readable.

    If each sample gets a file, which may be data for something else, pixels stay as they are.
    UsageError if the format has no pixels, or the picture would have too many.
    """
    if format not in PICTURES:
        if wanted is not None:
            raise UsageError(f"{format} has no pixels to enlarge", "leave --scale out")
        return 1
    if each:
        n, wanted = 1, wanted or 1
    side = max(picture_size(n, spec, 1))
    readable = round(_SEEN / max(spec.shape[1:]))
    scale = wanted or max(1, min(readable, _SHEET // side))
    width, height = picture_size(n, spec, scale)
    if max(width, height) > _MOST:
        raise UsageError(
            f"a picture of {n} samples would be {width} x {height} pixels",
            "draw fewer samples, or lower --scale; --shard-size writes many into a folder",
        )
    return scale


def picture_size(n: int, spec: ModelSpec, scale: int) -> tuple[int, int]:
    """Return width and height of the sheet of n samples, in pixels."""
    height, width = (side * scale for side in spec.shape[1:])
    height, width = grid_size(max(n, 1), height, width, padding=_frame(scale))
    return width, height


def encode(
    format: Format,
    samples: Floats,
    spec: ModelSpec,
    labels: NDArray[np.int64] | None,
    scale: int,
    *,
    framed: bool = True,
) -> bytes:
    """Return the file of samples float32 [N, *S].

    png, webp: a grid; npy: the samples; npz: the samples, and pixels of images; parquet: a shard of
    `difftool.scale`, with the labels if there are any. `Film` makes gifs.
    """
    buffer = io.BytesIO()
    if format in (Format.PNG, Format.WEBP):
        _sheet(to_uint8(samples, spec), scale, framed=framed).save(buffer, format, lossless=True)
    elif format is Format.PARQUET:
        from difftool.scale import encode_shard

        return encode_shard(samples, spec, 0, labels)
    elif format is Format.NPY:
        np.save(buffer, samples)
    elif is_image(spec):
        np.savez(buffer, samples=samples, images=to_uint8(samples, spec))
    else:
        np.savez(buffer, samples=samples)
    return buffer.getvalue()


def each_file(
    format: Format,
    samples: Floats,
    film: "Film | None",
    spec: ModelSpec,
    scale: int,
) -> Iterator[bytes]:
    """Yield a file for each sample, or for the film of each; pictures have no frame around them."""
    for index in range(len(samples)):
        one = slice(index, index + 1)
        if film:
            yield film.gif(scale, one, framed=False)
        else:
            yield encode(format, samples[one], spec, None, scale, framed=False)


def described(format: Format, n: int, spec: ModelSpec, scale: int) -> str:
    """Return the size of a picture and how much it is enlarged, to print behind its name."""
    if format not in PICTURES:
        return ""
    width, height = picture_size(n, spec, scale)
    return f" ({width} x {height} pixels, scale {scale})"


class Film:
    """The denoising of images: a grid of `denoised` at some steps, and the samples at the end."""

    def __init__(self, steps: int, spec: ModelSpec) -> None:
        moments = np.linspace(1, steps, min(_MOMENTS, steps)).round().astype(int).tolist()
        self._batches: dict[int, list[Pixels]] = {step: [] for step in moments}
        self._spec = spec

    @cached_property
    def _frames(self) -> list[Pixels]:
        """Return the pixels of all samples at each moment, after the run."""
        return [np.concatenate(batches) for batches in self._batches.values()]

    def show(self, state: State) -> None:
        """Keep a state if its step is one of those to show."""
        if state.step in self._batches:
            samples = state.x if state.step == state.steps else state.denoised
            self._batches[state.step].append(to_uint8(samples, self._spec))

    def gif(self, scale: int, chosen: slice = _ALL, *, framed: bool = True) -> bytes:
        """Return the film of the chosen samples as an endless gif that pauses at the end."""
        pictures = [_sheet(pixels[chosen], scale, framed=framed) for pixels in self._frames]
        durations = [_FRAME_MS] * (len(pictures) - 1) + [_LAST_FRAME_MS]
        buffer = io.BytesIO()
        pictures[0].save(
            buffer, "gif", save_all=True, append_images=pictures[1:], duration=durations, loop=0
        )
        return buffer.getvalue()


def _sheet(pixels: Pixels, scale: int, *, framed: bool) -> Image.Image:
    enlarged = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    sheet = grid(enlarged, padding=_frame(scale) if framed else 0)
    return Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet)


def _frame(scale: int) -> int:
    return min(_FRAME * scale, _WIDEST)
