"""Read the pictures, samples and masks that options of `difftool sample` name."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.cli.options import numbers
from difftool.data import decode, prepared
from difftool.diffusion import ModelSpec
from difftool.errors import ArtefactError, DifftoolError, UsageError
from difftool.runtime import Edit, is_image
from difftool.runtime.edits import colorize, inpaint

Floats = NDArray[np.float32]

_ARRAYS: Final = (".npy", ".npz")
_STRENGTH: Final = 0.5


@dataclass
class Inputs:
    """Arguments for `Model.sample`, the share of noise levels to run, and entries of the report."""

    init: Floats | None = None
    edit: Edit | None = None
    between: tuple[int, int] | None = None
    strength: float = 1.0
    record: dict[str, Any] = field(default_factory=dict)


def read_inputs(
    spec: ModelSpec,
    known: Path | None,
    fill: str | None,
    grey: Path | None,
    init: Path | None,
    strength: float | None,
    between: str | None,
) -> Inputs:
    """Read the options of `difftool sample` that name files or samples.

    Raises:
        UsageError: the options do not fit each other or the model.
        ArtefactError: a file cannot be read.
    """
    if (known is None) != (fill is None):
        raise UsageError("--known and --fill need each other", "give both to fill in a picture")
    if strength is not None and init is None:
        raise UsageError(
            "--strength needs --init", "give --init a picture, or leave --strength out"
        )
    if known is not None and grey is not None:
        raise UsageError("--known and --grey are both given", "give one of them")
    found = Inputs()
    if known is not None and fill is not None:
        found.edit = inpaint(read_samples(known, spec), 1 - fill_mask(fill, spec))
        found.record |= {"known": str(known), "fill": fill}
    if grey is not None:
        found.edit = colorize(_grey(read_samples(grey, spec), spec))
        found.record |= {"grey": str(grey)}
    if between is not None:
        ends = numbers(between)
        if len(ends) != 2:
            raise UsageError(
                f"--between {between!r} does not name two samples", "write --between 0,1"
            )
        found.between = ends[0], ends[1]
        found.record |= {"between": ends}
    if init is not None:
        found.init = read_samples(init, spec)
        found.strength = _STRENGTH if strength is None else strength
        found.record |= {"init": str(init), "strength": found.strength}
    return found


def read_samples(path: Path, spec: ModelSpec) -> Floats:
    """Read samples in the model's data range: float32 [*S] from a picture, or [n, *S].

    A picture is converted to the model's channels, then scaled and cropped to the model's size.
    """
    if path.suffix.lower() in _ARRAYS:
        samples = _array(path)
        if samples.shape[-len(spec.shape) :] != spec.shape or not np.isfinite(samples).all():
            raise UsageError(
                f"{path} holds an array {samples.shape}, but the model's samples are {spec.shape}",
                "give float32 [n, *shape], as difftool sample writes it",
            )
        return samples.astype(np.float32)
    if spec.data_range is None or not is_image(spec):
        raise UsageError(f"samples of shape {spec.shape} are not pictures", "give .npy or .npz")
    return prepared(_picture(path, spec), spec.data_range)


def fill_mask(part: str, spec: ModelSpec) -> Floats:
    """Return a mask, float32 [*S]: 1 means fill, 0 means keep.

    `part` is a word such as "left", a picture whose white is filled, or a file with an array.
    """
    path = Path(part)
    if path.suffix.lower() in _ARRAYS:
        given = _array(path)
        if given.shape != spec.shape:
            raise UsageError(
                f"{path} holds a mask {given.shape}, but the model's samples are {spec.shape}",
                f"give an array {spec.shape} of 0 and 1",
            )
        return given.astype(np.float32)
    if not is_image(spec):
        raise UsageError(f"samples of shape {spec.shape} are not pictures", "give a mask as .npy")
    height, width = spec.shape[1:]
    parts = {
        "left": np.s_[:, :, : width // 2],
        "right": np.s_[:, :, width // 2 :],
        "top": np.s_[:, : height // 2],
        "bottom": np.s_[:, height // 2 :],
        "center": np.s_[:, height // 4 : -(height // 4), width // 4 : -(width // 4)],
    }
    mask = np.zeros(spec.shape, np.float32)
    if part in parts:
        mask[parts[part]] = 1
    elif path.exists():
        mask += _picture(path, spec).mean(axis=0) >= 128
    else:
        raise UsageError(
            f"--fill {part!r} is no part and no file", f"give {', '.join(parts)}, or a mask's file"
        )
    return mask


def _grey(samples: Floats, spec: ModelSpec) -> Floats:
    if not is_image(spec) or spec.shape[0] != 3:
        raise UsageError(
            f"--grey needs a model of colour images, not of samples {spec.shape}",
            "choose a model with 3 channels",
        )
    return np.asarray(samples.mean(axis=-3, keepdims=True))


def _picture(path: Path, spec: ModelSpec) -> NDArray[np.uint8]:
    """Read a picture's pixels, uint8 [C, H, W]."""
    channels, height, width = spec.shape
    mode = "L" if channels == 1 else "RGB"
    with _reading(path, "a picture", "give a PNG or JPEG"):
        return decode(path.read_bytes(), str(path), (width, height), mode)


def _array(path: Path) -> NDArray[Any]:
    with _reading(path, "an array", "give a file that difftool sample wrote"):
        loaded = np.load(path, allow_pickle=False)
        array = loaded["samples"] if path.suffix.lower() == ".npz" else loaded
    if array.dtype.kind not in "fiub":
        raise ArtefactError(f"{path} holds {array.dtype}, not numbers", "give float32")
    return np.asarray(array)


@contextlib.contextmanager
def _reading(path: Path, what: str, hint: str) -> Iterator[None]:
    """Turn any error of a library that reads a file into an ArtefactError."""
    try:
        yield
    except DifftoolError as error:
        raise ArtefactError(error.message, error.hint) from error
    except FileNotFoundError as error:
        raise ArtefactError(f"there is no {path}", "give a picture, .npy or .npz") from error
    except Exception as error:  # Pillow's and numpy's errors have no common base
        raise ArtefactError(f"{path} cannot be read as {what}", hint) from error
