"""A data set in memory: its values, its labels, and a digest of both."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.diffusion.spec import usable_names
from difftool.errors import UsageError, quoted


@dataclass(frozen=True)
class Items:
    """A data set: `values` are uint8 images [N, C, H, W] or float32 points [N, D].

    - `labels`: int64 [N] in 0 .. `classes` - 1, or None
    - `names`: the name of each class, such as its folder's, or () if they have none
    - `sha256`: the digest of the files, or of a toy's name and numbers; it is the same on any
      machine
    """

    values: NDArray[Any]
    sha256: str
    labels: NDArray[np.int64] | None = None
    classes: int = 0
    names: tuple[str, ...] = ()


def from_array(
    values: ArrayLike, labels: ArrayLike | None = None, names: Sequence[str] = ()
) -> Items:
    """Return the data set of an array, for `difftool.train.train`.

    Args:
        values: uint8 images [N, H, W] or [N, H, W, C] with 1 or 3 channels, or points [N, D] of
            any float type.
        labels: the class of each item, integers [N] from 0.
        names: the name of each class.

    Raises:
        UsageError: the array has another shape or type, or labels and names do not fit it.

    Examples:
        >>> import numpy as np
        >>> images = np.zeros((4, 8, 8), np.uint8)
        >>> found = difftool.data.from_array(images, labels=[0, 1, 1, 0], names=["cat", "dog"])
        >>> found.values.shape, found.classes
        ((4, 1, 8, 8), 2)
    """
    given = np.asarray(values)
    if given.dtype == np.uint8 and given.ndim == 3:
        stored = given[:, None]
    elif given.dtype == np.uint8 and given.ndim == 4 and given.shape[3] in (1, 3):
        stored = given.transpose(0, 3, 1, 2)
    elif given.dtype.kind == "f" and given.ndim == 2 and np.isfinite(given).all():
        stored = given.astype(np.float32)
    else:
        raise UsageError(
            f"an array {given.dtype} {list(given.shape)} is no data to train on",
            "give uint8 images [N, H, W] or [N, H, W, C] of 1 or 3 channels, or finite points "
            "[N, D]",
        )
    if not stored.size:
        raise UsageError(f"an array {list(given.shape)} holds no data", "give at least one item")
    stored = np.ascontiguousarray(stored)
    items = Items(stored, digest(repr(stored.shape).encode(), stored.tobytes()))
    if labels is None:
        if names:
            raise UsageError("`names` of classes without `labels`", "give both")
        return items
    each = np.asarray(labels)
    if each.dtype.kind not in "iu" or each.shape != given.shape[:1]:
        raise UsageError(
            f"labels {each.dtype} {list(each.shape)} of {len(given)} items",
            "give one integer for each",
        )
    if names and not usable_names(names):
        raise UsageError(
            f"the names of the classes are {quoted(list(names))}",
            "give each class a name of its own, which can be printed",
        )
    return labelled(items, each.astype(np.int64), len(names) or None, tuple(names))


def labelled(
    items: Items,
    labels: NDArray[np.int64],
    classes: int | None = None,
    names: tuple[str, ...] = (),
) -> Items:
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
        names=names,
        sha256=digest(items.sha256.encode(), labels.astype("<i8").tobytes()),
    )


def digest(*parts: bytes) -> str:
    """Return the digest of the parts' digests, which depends on where each part ends."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
