"""A step's batch: which items, how they are scaled and mirrored, and their labels."""

import numpy as np
import pytest
import torch

from difftool.data import batch_indices
from difftool.train import draws
from difftool.train.config import TrainConfig, model_spec
from difftool.train.data import Data

SLOTS = np.arange(6)


def test_ranges_of_both_methods(images_config: TrainConfig) -> None:
    grey = torch.arange(256, dtype=torch.uint8).view(64, 1, 2, 2)
    ddpm = model_spec(images_config, (1, 2, 2))
    slots = np.arange(64)
    order = batch_indices(1, 0, 64, slots, 64)
    expected = grey[torch.from_numpy(order)].float() / 255
    x0, labels = Data(grey).batch(ddpm, 1, 0, 64, slots)
    assert torch.allclose(x0, expected * 2 - 1, atol=1e-6)
    assert labels is None

    ncsn = model_spec(images_config.model_copy(update={"method": "ncsn"}), (1, 2, 2))
    assert torch.allclose(Data(grey).batch(ncsn, 1, 0, 64, slots)[0], expected)
    spread = Data(grey, dequantize=True).batch(ncsn, 1, 0, 64, slots)[0] * 256
    # A dither of (0, 1] in float32 may round up to the next grey level.
    assert ((spread - expected * 255) > -1e-4).all()
    assert ((spread - expected * 255) < 1 + 1e-4).all()
    assert (spread - expected * 255).mean().item() == pytest.approx(0.5, abs=0.1)


def test_flips_mirror_whole_images(images_config: TrainConfig) -> None:
    items = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)
    spec = model_spec(images_config, (1, 2, 2))
    plain, _ = Data(items).batch(spec, 5, 2, 6, SLOTS)
    flipped, _ = Data(items, flip=True).batch(spec, 5, 2, 6, SLOTS)
    mirrored = draws.flips(5, 2, SLOTS)
    assert 0 < mirrored.sum() < 6
    for slot in SLOTS:
        expected = plain[slot].flip(-1) if mirrored[slot] else plain[slot]
        assert torch.equal(flipped[slot], expected)


def test_a_batch_has_the_labels_of_its_samples(images_config: TrainConfig) -> None:
    items = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 2, 2)
    spec = model_spec(images_config, (1, 2, 2))
    data = Data(items, labels=torch.arange(6), classes=6)
    x0, labels = data.batch(spec, 5, 2, 6, SLOTS)
    assert labels.tolist() == ((x0[:, 0, 0, 0] + 1) * 255 / 2).round().int().tolist()
