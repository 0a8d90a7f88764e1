"""Read samples from the files and folders that `difftool sample` writes."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftool.data import images, tables
from difftool.errors import ArtefactError, CheckFailed


def read_samples(path: Path) -> NDArray[Any]:
    """Read the images of an npz file or folder, uint8 [N, H, W, C], or its points, float64 [N, 2].

    Raises:
        ArtefactError: there is no such file, or it holds neither.
        CheckFailed: a point is not finite.
        MissingDependencyError: the library that reads a folder is not installed.
        UsageError: a folder lacks shards, or is none of samples.
    """
    found = _of_folder(str(path)) if path.is_dir() else _of_file(path)
    if found.ndim == 4 and found.dtype == np.uint8 and found.shape[3] in (1, 3):
        return np.asarray(found)
    if found.ndim == 2 and found.shape[1] == 2 and found.dtype.kind == "f":
        return finite(found, str(path)).astype(np.float64)
    raise ArtefactError(
        f"{path} holds {found.dtype} {found.shape}: neither images nor points in the plane",
        "make one: difftool sample",
    )


def _of_folder(folder: str) -> NDArray[Any]:
    table = tables.open_table(folder, "train", labels=False)
    points = tables.samples(table)
    if points is not None:
        return points
    pixels, _ = images.stack(tables.encoded_images(table, folder, None), folder, None, None)
    return pixels.transpose(0, 2, 3, 1)


def _of_file(path: Path) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return np.asarray(file["images"] if "images" in file else file["samples"])
    except FileNotFoundError as error:
        raise ArtefactError(f"no file at {path}", "make one: difftool sample") from error
    except MemoryError:
        raise
    except Exception as error:  # zip, zlib, header and key errors have no common base
        raise ArtefactError(
            f"{path} is not an npz file of images or samples", "make one: difftool sample"
        ) from error


def finite(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the values; CheckFailed if one is not finite."""
    if not np.isfinite(values).all():
        raise CheckFailed(
            f"{name} holds numbers that are not finite", "take more steps, or check the model"
        )
    return values
