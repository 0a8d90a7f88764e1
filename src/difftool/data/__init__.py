"""Data sets in memory, without PyTorch: images, points in the plane, and files of samples.

They must fit into memory: CIFAR-10 takes 154 MB, a million 64x64 colour images 12 GB.
"""

import numpy as np
from numpy.typing import NDArray

from difftool.data import images, tables, toys
from difftool.data.arrays import finite, read_samples
from difftool.data.images import decode, prepared
from difftool.data.items import Items, digest, from_array, labelled
from difftool.data.order import batch_indices
from difftool.data.sources import ARRAY, run_name
from difftool.errors import MissingDependencyError, UsageError, quoted

__all__ = [
    "ARRAY",
    "Items",
    "batch_indices",
    "decode",
    "finite",
    "from_array",
    "load",
    "prepared",
    "read_samples",
    "run_name",
    "toys",
]


def load(
    source: str,
    *,
    split: str = "train",
    column: str | None = None,
    labels: str | None = None,
    size: int | None = None,
    mode: str | None = None,
    count: int = 100_000,
    seed: int = 0,
) -> Items:
    """Load the whole data set that `source` names.

    Args:
        source: a toy ("gaussians", "swiss_roll", "moons", "checkerboard", "rings"), "digits", a
            folder of images, a folder of `difftool.scale.sample`, a parquet file, pattern or
            folder in the hub's layout, or "hf:NAME", a data set on the hub. Only that one is asked
            for, with a warning that says so.
        split: the part to read, if the data has several, by the names of its files or folders. If
            there is one, "train" reads it, whatever its name is.
        column: the column of images, if there are several.
        labels: the column of class labels; "label" for digits, for a toy of several parts, and for
            the subfolders of a folder of images.
        size: crop and scale images to size x size; digits stay as they are.
        mode: convert images to "L" or "RGB"; digits stay as they are.
        count: the number of a toy's points.
        seed: the seed of a toy's points.

    Raises:
        UsageError: there is no such data, it is empty, its images differ in size or mode, or it has
            no such labels.
        MissingDependencyError: the library that reads it is not installed.
    """
    if source in toys.TOYS:
        indices = np.arange(count)
        named = digest(f"{source} {seed} {count}".encode())
        points = Items(toys.points(source, seed, indices), named)
        if not _labels_wanted(source, labels, known=source in toys.LABELS):
            return points
        return labelled(points, toys.labels(source, seed, indices))
    if source == "digits":
        pixels, digits = _digits()
        items = Items(pixels, digest(pixels.tobytes()))
        return labelled(items, digits) if _labels_wanted(source, labels, known=True) else items
    table = tables.open_table(source, split, labels=labels is not None)
    numbers = tables.samples(table)
    if numbers is None:
        found = tables.encoded_images(table, source, column)
        items = Items(*images.stack(found, source, size, mode))
    else:
        items = Items(numbers, digest(numbers.tobytes()))
    return items if labels is None else labelled(items, *tables.labels(table, source, labels))


def _labels_wanted(source: str, labels: str | None, *, known: bool) -> bool:
    """Tell if labels of a toy or of digits are wanted; UsageError if there are no such labels."""
    if labels not in ((None, "label") if known else (None,)):
        raise UsageError(
            f"{quoted(source)} has no labels {quoted(labels)}",
            "give `labels=label`" if known else "leave labels out",
        )
    return labels is not None


def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return scikit-learn's 1797 digits, 8x8 with 17 grey levels over 0..255, and their labels."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingDependencyError.extra("scikit-learn", "data") from error
    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None], digits.target
