"""Training data as one tensor in memory: uint8 images [N, C, H, W] or float32 points [N, D].

Memory bounds the size: CIFAR-10 takes 154 MB, a million 64x64 colour images 12 GB.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difftool.diffusion.spec import ModelSpec
from difftool.errors import MissingDependencyError, UsageError
from difftool.train import draws, toys
from difftool.train.config import DataConfig


@dataclass(frozen=True)
class Data:
    """`items` as they are stored, and how a batch of them is prepared."""

    items: Tensor
    flip: bool = False
    dequantize: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample's shape [*S]."""
        return tuple(self.items.shape[1:])

    def batch(
        self, spec: ModelSpec, seed: int, step: int, batch: int, slots: draws.Indices
    ) -> Tensor:
        """The clean samples x0 of a step; float32 [slots, *S], scaled to the spec's data range."""
        indices = draws.batch_indices(seed, step, batch, slots, len(self.items))
        x = self.items[torch.from_numpy(indices)]
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
        UsageError: no such data, none in it, or images that differ in size or mode.
        MissingDependencyError: the library that reads it is not installed.
    """
    if config.source in toys.TOYS:
        points = toys.points(config.source, seed, np.arange(config.count))
        return Data(torch.from_numpy(points))
    if config.source == "digits":
        return Data(torch.from_numpy(_digits()), config.flip, config.dequantize)
    images = torch.from_numpy(_stack(_images(config), config))
    return Data(images, config.flip, config.dequantize)


def _digits() -> NDArray[np.uint8]:
    """scikit-learn's 1797 digits, 8x8 with 17 grey levels, spread over 0..255."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingDependencyError.extra("scikit-learn", "train") from error
    return np.rint(load_digits().images * (255 / 16)).astype(np.uint8)[:, None]


def _images(config: DataConfig) -> Iterable[Any]:
    """The encoded images, as dicts of `bytes` and `path`, of a folder, parquet file or hub name."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingDependencyError.extra("datasets", "train") from error
    datasets.disable_progress_bars()
    try:
        table = _open(datasets, config)
    except Exception as error:  # the library raises whatever its file systems and parsers raise
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise UsageError(
            f"cannot load the data {config.source!r}: {reason}",
            "give a folder, a parquet file, or a hub name (which needs the network)",
        ) from error
    column = _image_column(datasets, table, config)
    return table.cast_column(column, datasets.Image(decode=False))[column]


def _open(datasets: Any, config: DataConfig) -> Any:
    source = config.source
    if source.endswith(".parquet"):
        return datasets.load_dataset("parquet", data_files=source, split="train")
    if Path(source).is_dir():
        return datasets.load_dataset(
            "imagefolder", data_dir=source, split="train", drop_labels=True
        )
    return datasets.load_dataset(source, split=config.split)


def _image_column(datasets: Any, table: Any, config: DataConfig) -> str:
    columns = [name for name, kind in table.features.items() if isinstance(kind, datasets.Image)]
    if config.column is not None:
        columns = [name for name in table.features if name == config.column]
    if len(columns) != 1:
        raise UsageError(
            f"{config.source!r} has {len(columns) or 'no'} columns of images to choose from",
            f"set data.column to one of: {', '.join(table.features)}",
        )
    return columns[0]


def _stack(encoded: Iterable[Any], config: DataConfig) -> NDArray[np.uint8]:
    """All images as uint8 [N, C, H, W]; UsageError where they do not fit together."""
    images = [_decode(item, index, config) for index, item in enumerate(encoded)]
    if not images:
        raise UsageError(f"there are no images in {config.source!r}", "is it the right place?")
    for index, image in enumerate(images):
        if image.shape != images[0].shape:
            raise UsageError(
                f"image 0 of {config.source!r} is {_describe(images[0])}, "
                f"but image {index} is {_describe(image)}",
                "set data.size and data.mode to make them all the same",
            )
    return np.stack(images)


def _decode(item: dict[str, Any], index: int, config: DataConfig) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(item["bytes"]) if item["bytes"] else item["path"]) as file:
            mode = config.mode or ("L" if file.mode == "1" else file.mode)
            if mode not in ("L", "RGB"):
                raise UsageError(f"image {index} has mode {mode!r}", "set data.mode to L or RGB")
            image = file.convert(mode)
    except (OSError, ValueError, SyntaxError) as error:
        name = item["path"] or f"image {index}"
        raise UsageError(f"cannot read {name} of {config.source!r}", "is it an image?") from error
    if config.size is not None:
        image = ImageOps.fit(image, (config.size, config.size), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _describe(image: NDArray[np.uint8]) -> str:
    channels, height, width = image.shape
    return f"{width}x{height} {'L' if channels == 1 else 'RGB'}"
