"""Training data as one tensor in memory: uint8 images [N, C, H, W] or float32 points [N, D].

Memory bounds the size: CIFAR-10 takes 154 MB, a million 64x64 colour images 12 GB.
"""

import hashlib
import io
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from difftool.diffusion.spec import ModelSpec
from difftool.errors import MissingDependencyError, UsageError, quoted, short
from difftool.train import draws, toys
from difftool.train.config import DataConfig

_MORE_THAN_BYTES = ("I", "F")  # Pillow's modes of numbers of 16 bits and more


@dataclass(frozen=True)
class Data:
    """`items` as they are stored, and how a batch of them is prepared.

    `labels`, int64 [N] in 0 .. `classes` - 1, where they were asked for. `sha256` is of what they
    were made from, the files or what names a toy, so that it is the same on any machine.
    """

    items: Tensor
    flip: bool = False
    dequantize: bool = False
    labels: Tensor | None = None
    classes: int = 0
    sha256: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample's shape [*S]."""
        return tuple(self.items.shape[1:])

    def batch(
        self, spec: ModelSpec, seed: int, step: int, batch: int, slots: draws.Indices
    ) -> tuple[Tensor, Tensor | None]:
        """The clean samples x0 of a step, and their labels int64 [slots] or None.

        x0 is float32 [slots, *S], scaled to the spec's data range.
        """
        indices = torch.from_numpy(draws.batch_indices(seed, step, batch, slots, len(self.items)))
        x0 = self._prepared(self.items[indices], spec, seed, step, slots)
        return x0, None if self.labels is None else self.labels[indices]

    def _prepared(
        self, x: Tensor, spec: ModelSpec, seed: int, step: int, slots: draws.Indices
    ) -> Tensor:
        if self.flip:
            mirrored = draws.flips(seed, step, slots).view(-1, 1, 1, 1)
            x = torch.where(mirrored, x.flip(-1), x)
        if x.dtype != torch.uint8:
            return x
        # NCSN's dequantization spreads each grey level evenly over 1/256.
        dither = draws.dither(seed, step, slots, self.shape) if self.dequantize else None
        x = x / 255 if dither is None else (x + dither) / 256
        low, high = spec.data_range or (0.0, 1.0)
        return x * (high - low) + low


def load_data(config: DataConfig, seed: int) -> Data:
    """Everything that `config` names.

    Raises:
        UsageError: no such data, none in it, images that differ in size or mode, or no such labels.
        MissingDependencyError: the library that reads it is not installed.
    """
    if config.source in toys.TOYS:
        indices = np.arange(config.count)
        named = _sha256(f"{config.source} {seed} {config.count}".encode())
        points = Data(torch.from_numpy(toys.points(config.source, seed, indices)), sha256=named)
        if not _labels_wanted(config, known=config.source in toys.LABELS):
            return points
        return _labelled(points, toys.labels(config.source, seed, indices))
    if config.source == "digits":
        pixels, digits = _digits()
        images = _of_pixels(pixels, _sha256(pixels.tobytes()), config)
        return _labelled(images, digits) if _labels_wanted(config, known=True) else images
    table = _table(config)
    images = _of_pixels(*_stack(_images(table, config), config), config)
    return images if config.labels is None else _labelled(images, *_labels(table, config))


def _of_pixels(pixels: NDArray[np.uint8], sha256: str, config: DataConfig) -> Data:
    return Data(torch.from_numpy(pixels), config.flip, config.dequantize, sha256=sha256)


def _sha256(*parts: bytes) -> str:
    """The digest of the parts' digests, so that it tells where each of them ends."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """scikit-learn's 1797 digits, 8x8 with 17 grey levels, spread over 0..255; and which."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingDependencyError.extra("scikit-learn", "train") from error
    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None], digits.target


def _labels_wanted(config: DataConfig, *, known: bool) -> bool:
    """Whether the labels of a source that is no table are asked for; UsageError without any."""
    if config.labels not in ((None, "label") if known else (None,)):
        raise UsageError(
            f"{quoted(config.source)} has no labels {quoted(config.labels)}",
            "set data.labels to label" if known else "leave data.labels out",
        )
    return config.labels is not None


def _labelled(data: Data, labels: NDArray[np.int64], classes: int | None = None) -> Data:
    """`data` with labels [N]; `classes` is by default what the largest of them asks for."""
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= (len(labels) if classes is None else classes):
        raise UsageError(
            f"labels of {len(labels)} samples go from {least} to {most}",
            "number the classes from 0, without gaps",
        )
    return replace(
        data,
        labels=torch.from_numpy(labels),
        classes=classes or most + 1,
        sha256=_sha256(data.sha256.encode(), labels.astype("<i8").tobytes()),
    )


def _table(config: DataConfig) -> Any:
    """The data set of a folder, parquet file or hub name, as the datasets library reads it."""
    # It tells Hugging Face whenever it reads anything, be it a folder of this machine.
    os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingDependencyError.extra("datasets", "train") from error
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # if a host program has loaded it before
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is reported here
    try:
        return _open(datasets, config)
    except Exception as error:  # the library raises whatever its file systems and parsers raise
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise UsageError(
            f"cannot load the data {quoted(config.source)}: {reason}",
            "give a folder, a parquet file, or a hub name (which needs the network)",
        ) from error


def _images(table: Any, config: DataConfig) -> Iterable[Any]:
    """The encoded images, as dicts of `bytes` and `path`; UsageError for a column of others."""
    import datasets

    column = _image_column(datasets, table, config)
    try:
        return table.cast_column(column, datasets.Image(decode=False))[column]
    except Exception as error:  # of several libraries
        raise UsageError(
            f"column {quoted(column)} of {quoted(config.source)} holds no images",
            f"set data.column to one of: {', '.join(table.features)}",
        ) from error


def _labels(table: Any, config: DataConfig) -> tuple[NDArray[np.int64], int | None]:
    """The column of labels, int64 [N], and how many classes there are where the table says it."""
    if config.labels not in table.features:
        raise UsageError(
            f"{quoted(config.source)} has no column {quoted(config.labels)}",
            f"set data.labels to one of: {', '.join(table.features)}",
        )
    kind = table.features[config.labels]
    whole = str(getattr(kind, "dtype", "")).removeprefix("u").startswith("int")
    labels = np.asarray(table[config.labels][:]) if whole else None
    if labels is None or labels.dtype.kind not in "iu":  # an item without a label is None
        raise UsageError(
            f"column {quoted(config.labels)} of {quoted(config.source)} does not hold an integer "
            "for each item",
            "labels are whole numbers from 0",
        )
    return labels.astype(np.int64), getattr(kind, "num_classes", None)


def _open(datasets: Any, config: DataConfig) -> Any:
    source = config.source
    if source.endswith(".parquet"):
        return datasets.load_dataset("parquet", data_files=source, split="train")
    if Path(source).is_dir():
        return datasets.load_dataset(
            "imagefolder", data_dir=source, split="train", drop_labels=config.labels is None
        )
    return datasets.load_dataset(source, split=config.split)


def _image_column(datasets: Any, table: Any, config: DataConfig) -> str:
    columns = [name for name, kind in table.features.items() if isinstance(kind, datasets.Image)]
    if config.column is not None:
        columns = [name for name in table.features if name == config.column]
    if len(columns) != 1:
        raise UsageError(
            f"{quoted(config.source)} has {len(columns) or 'no'} columns of images to choose from",
            f"set data.column to one of: {', '.join(table.features)}",
        )
    return columns[0]


def _stack(encoded: Iterable[Any], config: DataConfig) -> tuple[NDArray[np.uint8], str]:
    """All images as uint8 [N, C, H, W], and the digest of their files.

    UsageError if they do not fit together.
    """
    images, whole = [], hashlib.sha256()
    for index, item in enumerate(encoded):
        data = _bytes(item, index, config)
        whole.update(hashlib.sha256(data).digest())
        images.append(_decode(data, item, index, config))
    if not images:
        raise UsageError(
            f"there are no images in {quoted(config.source)}", "is it the right place?"
        )
    for index, image in enumerate(images):
        if image.shape != images[0].shape:
            raise UsageError(
                f"image 0 of {quoted(config.source)} is {_describe(images[0])}, "
                f"but image {index} is {_describe(image)}",
                "set data.size and data.mode to make them all the same",
            )
    return np.stack(images), whole.hexdigest()


def _bytes(item: Any, index: int, config: DataConfig) -> bytes:
    """An image's file."""
    try:
        return item["bytes"] or Path(item["path"]).read_bytes()
    except (OSError, TypeError, ValueError) as error:  # neither bytes nor a path, among others
        raise _unreadable(item, index, config) from error


def _decode(data: bytes, item: Any, index: int, config: DataConfig) -> NDArray[np.uint8]:
    """An image as uint8 [C, H, W]; UsageError for what Pillow cannot read, or would not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's advice is for those who call it
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _pixels(data, index, config)
    except UsageError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they meet
        raise _unreadable(item, index, config) from error


def _pixels(data: bytes, index: int, config: DataConfig) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as file:
        if file.mode.startswith(_MORE_THAN_BYTES):  # which Pillow would cut off above 255
            raise UsageError(
                f"image {index} of {quoted(config.source)} has mode {quoted(file.mode)}",
                "save the images with 8 bits a channel",
            )
        mode = config.mode or ("L" if file.mode == "1" else file.mode)
        if mode not in ("L", "RGB"):
            raise UsageError(f"image {index} has mode {quoted(mode)}", "set data.mode to L or RGB")
        image: Image.Image = file.convert(mode)
    if config.size is not None:
        image = ImageOps.fit(image, (config.size, config.size), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _unreadable(item: Any, index: int, config: DataConfig) -> UsageError:
    name = (item and item["path"]) or f"image {index}"
    return UsageError(
        f"cannot read {short(str(name), 100)} of {quoted(config.source)}",
        "is it a whole image, and not huge?",
    )


def _describe(image: NDArray[np.uint8]) -> str:
    channels, height, width = image.shape
    return f"{width}x{height} {'L' if channels == 1 else 'RGB'}"
