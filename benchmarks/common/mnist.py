"""MNIST from its two parquet files, in memory."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.machine import ROOT
from difftool import data

HELD_OUT = 1000  # last training images, which no extractor has seen
SECOND = ROOT / "benchmarks/extractors/mnist_second.onnx"  # the extractor that is not shipped

Pixels = NDArray[np.uint8]  # [N, 28, 28, 1]


def load_mnist(folder: Path, split: str) -> data.Items:
    """Read the "train" or "test" images uint8 [N, 1, 28, 28] and their labels."""
    return data.load(str(folder / f"{split}-*.parquet"), labels="label")


def unseen(folder: Path, n: int) -> Pixels:
    """Read n images, HELD_OUT at most, that the shipped extractor has not seen."""
    return channels_last(load_mnist(folder, "train").values[-HELD_OUT:][:n])


def channels_last(images: Pixels) -> Pixels:
    """Give pixels [N, C, H, W] as [N, H, W, C]."""
    return images.transpose(0, 2, 3, 1)
