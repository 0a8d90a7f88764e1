"""How good generated MNIST digits are, as a classifier of real ones sees them.

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

from common import inside
from common.mnist import FOLDER, HELD_OUT, channels_last, load_mnist
from common.report import Figure, finish, parser

LEAST_SURE = {"ddpm": 0.9, "ncsn": 0.8}  # the share of samples that it must be sure of
RAREST, COMMONEST = 0.05, 0.16  # bounds of every digit's share
ACCURACY = 0.99  # of the extractor


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, default=FOLDER)
    arguments.add_argument("--samples", action="append", default=[], metavar="NAME=FILE.npz")
    arguments.add_argument("-n", type=int, default=HELD_OUT, help="how many of each to look at")
    options = arguments.parse_args()
    samples = {}
    for pair in options.samples:
        name, _, path = pair.partition("=")
        samples[name] = digits(name, Path(path), options.n)

    extractor = inside.open_extractor("mnist")
    test = load_mnist(options.data, "test")
    real = load_mnist(options.data, "train").images[-HELD_OUT:][: options.n]
    view = extractor.view(channels_last(test.images))
    reference = inside.fit_gaussian(view.features)
    assert view.probabilities is not None
    accuracy = float((view.probabilities.argmax(1) == test.labels).mean())
    figures = [
        Figure("extractor: accuracy on the test set", [accuracy], at_least=ACCURACY),
        Figure("test set: sure", [classes(view).sure]),
        *graded("held-out images", extractor.view(channels_last(real)), reference),
    ]
    for name, images in samples.items():
        limits = (LEAST_SURE[name], RAREST, COMMONEST)
        figures += graded(name, extractor.view(images), reference, *limits)
    setup = {
        "n": options.n,
        "confidence": inside.SURE,
        "test images": len(test.images),
        "extractor": extractor.sha256[:12],
    }
    return finish("quality", figures, options, **setup)


def digits(name: str, path: Path, n: int) -> inside.Pixels:
    """Read the first `n` images of a file that `difftool sample` wrote; uint8 [n, 28, 28, 1]."""
    if name not in LEAST_SURE:
        raise inside.UsageError(
            f"no target for {name!r}", f"--samples NAME=FILE, of {list(LEAST_SURE)}"
        )
    images = inside.read_samples(path)
    if images.shape[1:] != (28, 28, 1) or len(images) < n:
        raise inside.UsageError(
            f"{path} holds images {images.shape}", f"draw {n} of 28x28x1, as npz"
        )
    return images[:n]


def classes(view: inside.View) -> inside.Classes:
    """Count what the shipped extractor's classifier says."""
    assert view.probabilities is not None
    return inside.summarize_classes(view.probabilities)


def graded(
    name: str,
    view: inside.View,
    reference: inside.Gaussian,
    sure: float | None = None,
    rarest: float | None = None,
    commonest: float | None = None,
) -> list[Figure]:
    """Make figures of what the extractor says of images, with limits if they are given."""
    found = classes(view)
    least, most = min(found.shares), max(found.shares)
    low, high = found.shares.index(least), found.shares.index(most)
    distance = inside.frechet_distance(inside.fit_gaussian(view.features), reference)
    return [
        Figure(f"{name}: sure", [found.sure], at_least=sure),
        Figure(f"{name}: rarest digit, {low}", [least], at_least=rarest),
        Figure(f"{name}: commonest digit, {high}", [most], at_most=commonest),
        Figure(f"{name}: Frechet distance", [distance]),
    ]


if __name__ == "__main__":
    sys.exit(main())
