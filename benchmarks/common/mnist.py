"""MNIST from its two parquet files, in memory."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray
from PIL import Image

from common.inside import UsageError
from common.machine import ROOT

FOLDER = ROOT.parent / "shared/data/mnist"
HELD_OUT = 1000  # last training images, which the shipped extractor has not seen

_FILES = {"train": "train-*.parquet", "test": "test-*.parquet"}


class Labelled(NamedTuple):
    """Pixels uint8 [N, 1, 28, 28] and what they show, int64 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def load_mnist(folder: Path, split: str) -> Labelled:
    """Read the "train" or "test" images of a folder of parquet files."""
    files = sorted(folder.glob(_FILES[split]))
    if not files:
        raise UsageError(f"no {_FILES[split]} in {folder}", "give MNIST's folder: --data")
    table = parquet.read_table(files)
    pixels = np.stack([_decode(item["bytes"]) for item in table["image"].to_pylist()])
    return Labelled(pixels[:, None], table["label"].to_numpy().astype(np.int64))


def channels_last(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels [N, C, H, W] as [N, H, W, C]."""
    return images.transpose(0, 2, 3, 1)


def _decode(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)
