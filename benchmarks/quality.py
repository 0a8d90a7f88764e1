"""Measure how good generated MNIST digits are, as a classifier of real ones sees them.

    difftool sample ddpm-mnist -n 1000 --out ddpm.npz
    difftool sample ncsn-mnist -n 1000 --out ncsn.npz
    python benchmarks/quality.py --samples ddpm=ddpm.npz --samples ncsn=ncsn.npz

The classifier is the shipped extractor. Judged are the share of samples that it is sure of, how
evenly the ten digits come, and the Frechet distance to the test set in the space of its features.
The last depends on how many samples there are, so as many real images, which the extractor was not
trained on, stand beside them.
"""

import sys
from pathlib import Path

from common.inside import SURE
from common.mnist import HELD_OUT, Pixels, channels_last, load_mnist, unseen
from common.report import Figure, finish, parser

from difftool.data import read_samples
from difftool.errors import UsageError
from difftool.evaluate import Evaluator, ImageFigures, open_extractor

LEAST_SURE = {"ddpm": 0.9, "ncsn": 0.8}  # the share of samples that it must be sure of
RAREST, COMMONEST = 0.05, 0.16  # bounds of every digit's share
ACCURACY = 0.99  # of the extractor


def main() -> int:
    arguments = parser(__doc__, "out", "data")
    arguments.add_argument("--samples", action="append", default=[], metavar="NAME=FILE.npz")
    arguments.add_argument("-n", type=int, default=HELD_OUT, help="how many of each to look at")
    options = arguments.parse_args()
    samples = {}
    for pair in options.samples:
        name, _, path = pair.partition("=")
        samples[name] = digits(name, Path(path), options.n)

    test, extractor = load_mnist(options.data, "test"), open_extractor("mnist")
    images = channels_last(test.values)
    evaluator = Evaluator(images.shape[1:], images, extractor=extractor)
    probabilities = extractor.view(images).probabilities
    accuracy = float((probabilities.argmax(1) == test.labels).mean())
    real = evaluator.evaluate(unseen(options.data, options.n))
    figures = [
        Figure("extractor: accuracy on the test set", [accuracy], at_least=ACCURACY),
        Figure("test set: sure", [float((probabilities.max(1) >= SURE).mean())]),
        *graded("held-out images", real.figures),
    ]
    for name, drawn in samples.items():
        limits = (LEAST_SURE[name], RAREST, COMMONEST)
        figures += graded(name, evaluator.evaluate(drawn).figures, *limits)
    setup = {"n": options.n, "confidence": SURE, "test images": len(images)}
    return finish("quality", figures, options, **setup, extractor=extractor.sha256[:12])


def digits(name: str, path: Path, n: int) -> Pixels:
    """Read the first `n` images of a file that `difftool sample` wrote."""
    if name not in LEAST_SURE:
        raise UsageError(f"no target for {name!r}", f"--samples NAME=FILE, of {list(LEAST_SURE)}")
    images = read_samples(path)
    if images.shape[1:] != (28, 28, 1) or len(images) < n:
        raise UsageError(f"{path} holds images {images.shape}", f"draw {n} of 28x28x1, as npz")
    return images[:n]


def graded(
    name: str,
    found: ImageFigures,
    sure: float | None = None,
    rarest: float | None = None,
    commonest: float | None = None,
) -> list[Figure]:
    """Make figures of what the extractor says of images, with limits if they are given."""
    shares = found.classes.shares
    low, high = shares.index(min(shares)), shares.index(max(shares))
    return [
        Figure(f"{name}: sure", [found.classes.sure], at_least=sure),
        Figure(f"{name}: rarest digit, {low}", [shares[low]], at_least=rarest),
        Figure(f"{name}: commonest digit, {high}", [shares[high]], at_most=commonest),
        Figure(f"{name}: Frechet distance", [found.frechet_distance]),
    ]


if __name__ == "__main__":
    sys.exit(main())
