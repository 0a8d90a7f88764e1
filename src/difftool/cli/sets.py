"""The sets that `difftool eval` compares: pixels of images, or points in the plane."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.errors import ArtefactError, CheckFailed, UsageError

Set = NDArray[Any]  # pixels uint8 [N, H, W, C], or points float64 [N, 2]

_TOY_POINTS: Final = 5_000
_FIRST_TOY_POINT: Final = 1 << 31  # no training has as many, so the points are unseen


def read_samples(path: Path) -> Set:
    """The images of a file that `difftool sample` wrote, or else its points."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = file["images"] if "images" in file else file["samples"]
    except FileNotFoundError as error:
        raise ArtefactError(f"no file at {path}", "make one: difftool sample") from error
    except MemoryError:
        raise
    except Exception as error:  # zip, zlib, header and key errors have no common base
        raise ArtefactError(
            f"{path} is not an npz file of images or samples", "make one: difftool sample"
        ) from error
    if found.ndim == 4 and found.dtype == np.uint8 and found.shape[3] in (1, 3):
        return found
    if found.ndim == 2 and found.shape[1] == 2 and found.dtype.kind == "f":
        return finite(found, str(path)).astype(np.float64)
    raise ArtefactError(
        f"{path} holds {found.dtype} {found.shape}: neither images nor points in the plane",
        "make one: difftool sample",
    )


def read_data(source: str, like: tuple[int, ...]) -> Set:
    """The data that samples of a shape, [H, W, C] or [2], are compared with.

    An npz file, or whatever a training can read; images are cropped, scaled and converted to the
    samples' size as a training does it.
    """
    if source.endswith(".npz"):
        return read_samples(Path(source))
    from difftool.train import toys

    if source in toys.TOYS:
        indices = np.arange(_FIRST_TOY_POINT, _FIRST_TOY_POINT + _TOY_POINTS)
        return toys.points(source, 0, indices).astype(np.float64)
    from difftool.train.config import DataConfig
    from difftool.train.data import load_data

    if len(like) != 3:
        raise UsageError(
            f"{source} holds images, and the samples are points",
            f"compare them with an npz file or one of: {', '.join(toys.TOYS)}",
        )
    height, width, channels = like
    config = DataConfig(
        source=source,
        size=height if height == width and source != "digits" else None,
        mode="L" if channels == 1 else "RGB",
    )
    return load_data(config, seed=0).items.numpy().transpose(0, 2, 3, 1)


def finite(values: NDArray[Any], name: str) -> NDArray[Any]:
    """The values; CheckFailed where one is not a finite number."""
    if not np.isfinite(values).all():
        raise CheckFailed(f"{name} holds numbers that are not finite", "is the sampler stable?")
    return values
