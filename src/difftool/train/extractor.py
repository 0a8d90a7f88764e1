"""Train an extractor: a classifier of labelled images, by whose features images are compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difftool.data import Items, batch_indices
from difftool.errors import UsageError
from difftool.networks.classifier import Classifier

STEPS: Final = 2000
_BATCH: Final = 128
_PEAK_LR: Final = 4e-3
_SHIFT: Final = 2  # pixels that training images are moved by at most: strokes count, not places
_TENTH, _MOST_HELD_OUT = 10, 5_000
_LEAST: Final = 20  # images: two are held out, and batch normalization has enough of the others
_SMALLEST: Final = 2  # pixels of a side


@dataclass(frozen=True, kw_only=True)
class TrainedExtractor:
    """A trained classifier, in evaluation mode and on the CPU.

    - `network`: pixels float32 [N, C, H, W] in 0 .. 1 to features [N, F], probabilities [N, K]
    - `shape`: that of an image, [C, H, W]
    - `accuracy`: the share of the `held_out` images, which it was not trained on, named right
    - `trained_on`: the number of all other images; `data_sha256` is the digest of the whole data
    """

    network: nn.Module
    shape: tuple[int, int, int]
    classes: int
    accuracy: float
    held_out: int
    trained_on: int
    data_sha256: str
    steps: int
    seed: int


def train_extractor(
    items: Items,
    *,
    steps: int = STEPS,
    seed: int = 0,
    on_step: Callable[[int], None] = lambda done: None,
) -> TrainedExtractor:
    """Train a small convolutional classifier on labelled images of any size, grey or colour.

    A tenth of the images, 5000 at most, is held out; which ones depends on the seed. The weights
    are the same for the same seed, data, PyTorch, device and number of threads.

    Args:
        items: uint8 images [N, C, H, W] with labels, as `difftool.data.load` gives them.
        steps: the number of optimizer steps, each of 128 images.
        seed: the seed of held-out images, initial weights and order, 0 to 2^63-1.
        on_step: called after each step with the number of steps done.

    Raises:
        UsageError: the data are no labelled images or too few, or a number is out of range.

    Examples:
        >>> digits = difftool.data.load("digits", labels="label")
        >>> trained = difftool.train.train_extractor(digits, steps=50)
        >>> trained.held_out, trained.accuracy > 0.5
        (179, True)
    """
    if steps < 1 or not 0 <= seed < 1 << 63:
        raise UsageError(
            f"{steps} steps of the seed {seed} are out of range",
            "give 1 step or more, and a seed of 0 to 2^63-1",
        )
    shape, labels = _labelled(items)
    images, count = torch.from_numpy(items.values), len(items.values)
    # The first epoch's order is a permutation of all images that depends on the seed alone.
    order = torch.from_numpy(batch_indices(seed, 0, count, np.arange(count), count))
    held, rest = order.tensor_split([min(count // _TENTH, _MOST_HELD_OUT)])
    network = fit(
        lambda: Classifier(shape, items.classes),
        images[rest],
        labels[rest],
        steps=steps,
        seed=seed,
        on_step=on_step,
    )
    return TrainedExtractor(
        network=network,
        shape=shape,
        classes=items.classes,
        accuracy=_accuracy(network, images[held], labels[held]),
        held_out=len(held),
        trained_on=len(rest),
        data_sha256=items.sha256,
        steps=steps,
        seed=seed,
    )


def fit(
    build: Callable[[], nn.Module],
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    seed: int,
    on_step: Callable[[int], None] = lambda done: None,
) -> nn.Module:
    """Build a classifier, train it, and return it in evaluation mode, on the CPU.

    `images` are uint8 [N, C, H, W], `labels` int64 [N]. In training the network returns features
    and logits. The generator of PyTorch is left as it was.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = build().to(device)
        optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=1e-2)
        course = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_LR, total_steps=steps)
        done = 0
        while done < steps:
            # Batch normalization cannot learn from one image, which may be an epoch's last batch.
            batches = [b for b in torch.randperm(len(images)).split(_BATCH) if len(b) > 1]
            for index in batches[: steps - done]:
                _, logits = classifier(_shift(images[index].to(device) / 255))
                loss = F.cross_entropy(logits, labels[index].to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                course.step()
                done += 1
                on_step(done)
    return classifier.eval().cpu()


def _labelled(items: Items) -> tuple[tuple[int, int, int], Tensor]:
    """Return the shape of an image and the labels, or refuse data that teaches no classes."""
    shape = items.values.shape[1:]
    if len(shape) != 3 or min(shape[1:]) < _SMALLEST:
        raise UsageError(
            f"items of shape {shape} are not images of {_SMALLEST} pixels and more",
            "give labelled images",
        )
    if items.labels is None or len(np.unique(items.labels)) < 2:
        raise UsageError(
            "an extractor is trained to tell classes apart, and the data has no labels of two",
            "name the column of labels, or sort the images into a folder for each class",
        )
    if len(items.values) < _LEAST:
        raise UsageError(f"{len(items.values)} images are too few", f"give {_LEAST} or more")
    channels, height, width = shape
    return (channels, height, width), torch.from_numpy(items.labels)


def _accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.inference_mode():
        named = [network(part / 255)[1].argmax(1) for part in images.split(_BATCH)]
    return float((torch.cat(named) == labels).double().mean())


def _shift(pixels: Tensor) -> Tensor:
    """Move a batch by one random whole number of pixels each way; the border is black."""
    down, right = torch.randint(0, 2 * _SHIFT + 1, (2,)).tolist()
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (_SHIFT,) * 4)[..., down : down + height, right : right + width]
