"""Extractors of any images: what is held out, what is learned, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from difftool.data import Items, batch_indices
from difftool.errors import UsageError
from difftool.networks.classifier import Classifier
from difftool.train import TrainedExtractor, train_extractor


def coloured(count: int = 80, shape: tuple[int, int, int] = (3, 6, 8)) -> Items:
    """Noise in which the class 0, 1 or 2 is the brightest channel, or half of a grey image."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    values = rng.integers(0, 120, (count, *shape), dtype=np.uint8)
    for image, label in zip(values, labels, strict=True):
        image[label % shape[0]] += np.uint8(100)
    return Items(values, "0" * 64, labels, 3)


def trained(items: Items, steps: int = 25, seed: int = 0) -> TrainedExtractor:
    return train_extractor(items, steps=steps, seed=seed)


def test_colours_are_learned() -> None:
    found = trained(coloured())
    assert found.accuracy == 1.0
    assert (found.shape, found.classes) == ((3, 6, 8), 3)
    assert (found.held_out, found.trained_on, found.data_sha256) == (8, 72, "0" * 64)
    features, probabilities = found.network(torch.zeros(2, 3, 6, 8))
    assert (features.shape, probabilities.shape) == ((2, 64), (2, 3))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))
    assert not found.network.training


def test_images_that_are_held_out_teach_nothing() -> None:
    """With other labels of theirs, the weights are the same, and none of them is named right."""
    items = coloured()
    assert items.labels is not None
    held = batch_indices(0, 0, 80, np.arange(80), 80)[:8]
    labels = items.labels.copy()
    labels[held] = (labels[held] + 1) % 3
    right, wrong = trained(items), trained(replace(items, labels=labels))
    assert (right.accuracy, wrong.accuracy) == (1.0, 0.0)
    one, other = right.network.state_dict(), wrong.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_generator() -> None:
    state = torch.get_rng_state()
    one, same, other = (trained(coloured(), 3, seed).network.state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["logits.weight"], other["logits.weight"])


def test_each_step_is_told() -> None:
    told: list[int] = []
    train_extractor(coloured(300), steps=5, on_step=told.append)  # two epochs, of three batches
    assert told == [1, 2, 3, 4, 5]


POINTS = Items(np.zeros((50, 2), np.float32), "", np.arange(50) % 2, 2)
FEW, LONELY, BARE = coloured(19), coloured(), coloured()
BAD = {
    "points": (POINTS, {}, "are not images"),
    "no labels": (Items(BARE.values, ""), {}, "has no labels of two"),
    "one class": (Items(LONELY.values, "", np.zeros(80, np.int64), 1), {}, "no labels of two"),
    "few": (FEW, {}, "19 images are too few"),
    "thin": (coloured(shape=(1, 1, 8)), {}, "are not images of 2 pixels"),
    "no steps": (BARE, {"steps": 0}, "out of range"),
    "no seed": (BARE, {"seed": -1}, "out of range"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_learned_is_refused(name: str) -> None:
    items, arguments, message = BAD[name]
    with pytest.raises(UsageError, match=message):
        train_extractor(items, **arguments)


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [((1, 28, 28), 115_258), ((3, 32, 32), 319_402)],
    ids=["mnist", "cifar"],
)
def test_the_number_of_parameters(shape: tuple[int, int, int], parameters: int) -> None:
    """By hand: three convolutions without biases, their norms, a hidden layer and the classes."""
    network = Classifier(shape, 10)
    assert sum(each.numel() for each in network.parameters()) == parameters


@pytest.mark.parametrize(
    "shape", [(1, 2, 2), (3, 2, 90), (1, 8, 8), (3, 31, 17), (3, 64, 64), (1, 130, 130)], ids=str
)
def test_images_of_any_size_fit(shape: tuple[int, int, int]) -> None:
    features, probabilities = Classifier(shape, 4).eval()(torch.zeros(2, *shape))
    assert (features.shape, probabilities.shape) == ((2, 64), (2, 4))
