"""Samples as a file: its format and its bytes. Equal samples give equal bytes."""

import io
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difftool.cli.options import Format
from difftool.diffusion import ModelSpec
from difftool.errors import UsageError
from difftool.runtime import State, grid, is_image, to_uint8

_MOMENTS: Final = 50  # frames of a gif
_FRAME_MS, _LAST_FRAME_MS = 80, 2000
_PICTURES: Final = (Format.PNG, Format.GIF)


def choose_format(wanted: Format | None, out: Path | None, spec: ModelSpec) -> Format:
    """Return the wanted format, or else that of `out`.

    If both are None: png for images, and npz for other samples.
    """
    if wanted is None and out is not None:
        suffix = out.suffix.lower().removeprefix(".")
        if suffix not in list(Format):
            known = ", ".join(f".{name}" for name in Format)
            raise UsageError(f"{out} names no format", f"end it in {known}; or give --format")
        wanted = Format(suffix)
    if wanted in _PICTURES and not is_image(spec):
        raise UsageError(f"samples of shape {spec.shape} are not images", "use npy or npz")
    return wanted or (Format.PNG if is_image(spec) else Format.NPZ)


def encode(format: Format, samples: NDArray[np.float32], spec: ModelSpec) -> bytes:
    """Return the file of samples float32 [N, *S].

    png: a grid; npy: the samples; npz: the samples, and pixels of images. `Film` makes gifs.
    """
    buffer = io.BytesIO()
    if format is Format.PNG:
        _picture(to_uint8(samples, spec)).save(buffer, "png")
    elif format is Format.NPY:
        np.save(buffer, samples)
    elif is_image(spec):
        np.savez(buffer, samples=samples, images=to_uint8(samples, spec))
    else:
        np.savez(buffer, samples=samples)
    return buffer.getvalue()


class Film:
    """The denoising of images: a grid of `denoised` at some steps, and the samples at the end."""

    def __init__(self, steps: int, spec: ModelSpec) -> None:
        moments = np.linspace(1, steps, min(_MOMENTS, steps)).round().astype(int).tolist()
        self._batches: dict[int, list[NDArray[np.uint8]]] = {step: [] for step in moments}
        self._spec = spec

    def show(self, state: State) -> None:
        """Keep a state if its step is one of those to show."""
        if state.step in self._batches:
            samples = state.x if state.step == state.steps else state.denoised
            self._batches[state.step].append(to_uint8(samples, self._spec))

    def gif(self) -> bytes:
        """Return the film as an endless gif that pauses at the samples."""
        pictures = [_picture(np.concatenate(batches)) for batches in self._batches.values()]
        durations = [_FRAME_MS] * (len(pictures) - 1) + [_LAST_FRAME_MS]
        buffer = io.BytesIO()
        pictures[0].save(
            buffer, "gif", save_all=True, append_images=pictures[1:], duration=durations, loop=0
        )
        return buffer.getvalue()


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    sheet = grid(pixels)
    return Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet)
