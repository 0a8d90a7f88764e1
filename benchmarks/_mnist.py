"""MNIST from its two parquet files, as tensors in memory."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as parquet
import torch
from PIL import Image
from torch import Tensor

from difftool.errors import UsageError

_FILES = {"train": "train-*.parquet", "test": "test-*.parquet"}


class Labelled(NamedTuple):
    """Pixels uint8 [N, 1, 28, 28] and what they show, int64 [N]."""

    images: Tensor
    labels: Tensor


def load_mnist(folder: Path, split: str) -> Labelled:
    """The "train" or "test" images of a folder of parquet files."""
    files = sorted(folder.glob(_FILES[split]))
    if not files:
        raise UsageError(f"no {_FILES[split]} in {folder}", "give MNIST's folder: --data")
    table = parquet.read_table(files)
    pixels = np.stack([_decode(item["bytes"]) for item in table["image"].to_pylist()])
    labels = table["label"].to_numpy().astype(np.int64)
    return Labelled(torch.from_numpy(pixels[:, None]), torch.from_numpy(labels))


def _decode(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)
