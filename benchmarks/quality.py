"""How good generated MNIST digits are, as a classifier of real ones sees them.

    difftool sample ddpm-mnist -n 1000 --out ddpm.npz
    difftool sample ncsn-mnist -n 1000 --out ncsn.npz
    python benchmarks/quality.py --samples ddpm=ddpm.npz --samples ncsn=ncsn.npz

Judged are the share of samples that it is sure of, how evenly the ten digits come, and the Frechet
distance to the test set in the space of its features. The last depends on how many samples there
are, so as many real images, which the classifier was not trained on, stand beside them.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from _frechet import Gaussian, frechet_distance, gaussian_of
from _judge import Judge, open_judge
from _mnist import Labelled, load_mnist
from _report import ROOT, Figure, finish, parser
from torch import Tensor

from difftool.errors import UsageError

SURE = {"ddpm": 0.9, "ncsn": 0.8}  # at least this share of samples ...
CONFIDENCE = 0.9  # ... must be given to one class with at least this probability
RAREST, COMMONEST = 0.05, 0.16  # bounds of every digit's share
ACCURACY = 0.99  # of the judge
HELD_OUT = 1000  # training images that the judge does not see


class Grade(NamedTuple):
    """What the judge says of a set of images."""

    sure: float
    shares: Tensor
    distance: float


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/mnist")
    arguments.add_argument("--judge", type=Path, default=ROOT / "runs/judge.safetensors")
    arguments.add_argument("--samples", action="append", default=[], metavar="NAME=FILE.npz")
    arguments.add_argument("-n", type=int, default=HELD_OUT, help="how many of each to look at")
    options = arguments.parse_args()
    samples = {}
    for pair in options.samples:
        name, _, path = pair.partition("=")
        samples[name] = read_samples(name, Path(path), options.n)

    train, test = load_mnist(options.data, "train"), load_mnist(options.data, "test")
    judge = open_judge(options.judge, Labelled(*(part[:-HELD_OUT] for part in train)))
    probabilities, features = judge.look(test.images)
    accuracy = (probabilities.argmax(1) == test.labels).double().mean().item()
    reference = gaussian_of(features.numpy())
    real = grade(judge, train.images[-HELD_OUT:][: options.n], reference)
    figures = [
        Figure(name="judge: accuracy on the test set", values=[accuracy], at_least=ACCURACY),
        Figure(name="test set: sure", values=[sure_share(probabilities)]),
        *graded("held-out images", real),
    ]
    for name, images in samples.items():
        found = grade(judge, images, reference)
        figures += graded(name, found, SURE[name], RAREST, COMMONEST)
    setup = {"n": options.n, "confidence": CONFIDENCE, "test images": len(test.images)}
    return finish("quality", figures, setup, options.out)


def read_samples(name: str, path: Path, n: int) -> Tensor:
    """The first `n` images of a file that `difftool sample` wrote; uint8 [n, 1, 28, 28]."""
    if name not in SURE:
        raise UsageError(f"no target for {name!r}", f"--samples NAME=FILE, of {', '.join(SURE)}")
    images = np.load(path)["images"]
    if images.shape[1:] != (28, 28, 1) or len(images) < n:
        raise UsageError(f"{path} holds images {images.shape}", f"draw {n} of 28x28x1, as npz")
    return torch.from_numpy(images[:n].transpose(0, 3, 1, 2).copy())


def grade(judge: Judge, images: Tensor, reference: Gaussian) -> Grade:
    """What the judge says of images uint8 [N, 1, 28, 28]; `reference` is of the test set."""
    probabilities, features = judge.look(images)
    shares = probabilities.argmax(1).bincount(minlength=10).double() / len(images)
    distance = frechet_distance(gaussian_of(features.numpy()), reference)
    return Grade(sure_share(probabilities), shares, distance)


def sure_share(probabilities: Tensor) -> float:
    """The share of images that are given to one class with confidence."""
    return (probabilities.amax(1) >= CONFIDENCE).double().mean().item()


def graded(
    name: str,
    found: Grade,
    sure: float | None = None,
    rarest: float | None = None,
    commonest: float | None = None,
) -> list[Figure]:
    """A grade as figures, with limits where they are given."""
    low, high = (int(found.shares.argmin()), int(found.shares.argmax()))
    least, most = (found.shares[digit].item() for digit in (low, high))
    return [
        Figure(name=f"{name}: sure", values=[found.sure], at_least=sure),
        Figure(name=f"{name}: rarest digit, {low}", values=[least], at_least=rarest),
        Figure(name=f"{name}: commonest digit, {high}", values=[most], at_most=commonest),
        Figure(name=f"{name}: Frechet distance", values=[found.distance]),
    ]


if __name__ == "__main__":
    sys.exit(main())
