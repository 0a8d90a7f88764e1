"""Data sets in memory, without PyTorch: images, points in the plane, and files of samples.

They must fit into memory: CIFAR-10 takes 154 MB, a million 64x64 colour images 12 GB.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftool.data import images, tables, toys
from difftool.data.arrays import finite, read_samples
from difftool.data.images import decode, prepared
from difftool.data.order import batch_indices
from difftool.errors import MissingDependencyError, UsageError, quoted

__all__ = ["Items", "batch_indices", "decode", "finite", "load", "prepared", "read_samples", "toys"]


@dataclass(frozen=True)
class Items:
    """A data set: `values` are uint8 images [N, C, H, W] or float32 points [N, D].

    - `labels`: int64 [N] in 0 .. `classes` - 1, or None
    - `sha256`: the digest of the files, or of a toy's name and numbers; it is the same on any
      machine
    """

    values: NDArray[Any]
    sha256: str
    labels: NDArray[np.int64] | None = None
    classes: int = 0


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
            folder of images, a folder of `difftool.scale.sample`, a parquet file or pattern, or the
            name of a data set on the hub.
        split: the split of a data set on the hub.
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
        named = _sha256(f"{source} {seed} {count}".encode())
        points = Items(toys.points(source, seed, indices), named)
        if not _labels_wanted(source, labels, known=source in toys.LABELS):
            return points
        return _labelled(points, toys.labels(source, seed, indices))
    if source == "digits":
        pixels, digits = _digits()
        items = Items(pixels, _sha256(pixels.tobytes()))
        return _labelled(items, digits) if _labels_wanted(source, labels, known=True) else items
    table = tables.open_table(source, split, labels=labels is not None)
    numbers = tables.samples(table)
    if numbers is None:
        found = tables.encoded_images(table, source, column)
        items = Items(*images.stack(found, source, size, mode))
    else:
        items = Items(numbers, _sha256(numbers.tobytes()))
    return items if labels is None else _labelled(items, *tables.labels(table, source, labels))


def _labelled(items: Items, labels: NDArray[np.int64], classes: int | None = None) -> Items:
    """Add labels [N] to items; `classes` is by default the largest label plus 1."""
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= (len(labels) if classes is None else classes):
        raise UsageError(
            f"labels of {len(labels)} samples go from {least} to {most}",
            "number the classes from 0, without gaps",
        )
    return replace(
        items,
        labels=labels,
        classes=classes or most + 1,
        sha256=_sha256(items.sha256.encode(), labels.astype("<i8").tobytes()),
    )


def _labels_wanted(source: str, labels: str | None, *, known: bool) -> bool:
    """Tell if labels of a toy or of digits are wanted; UsageError if there are no such labels."""
    if labels not in ((None, "label") if known else (None,)):
        raise UsageError(
            f"{quoted(source)} has no labels {quoted(labels)}",
            "set labels to label" if known else "leave labels out",
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


def _sha256(*parts: bytes) -> str:
    """Return the digest of the parts' digests, which depends on where each part ends."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
