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

from _mnist import FOLDER, HELD_OUT, load_mnist
from _report import Figure, finish, parser

from difftool.data import read_samples
from difftool.errors import UsageError
from difftool.evaluate.classifier import SURE, Classes, classes_of
from difftool.evaluate.distances import Gaussian, frechet_distance, gaussian_of
from difftool.evaluate.extractor import Extractor, Pixels, View, open_extractor

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

    extractor = open_extractor("mnist")
    test = load_mnist(options.data, "test")
    real = load_mnist(options.data, "train").images[-HELD_OUT:][: options.n]
    view = extractor.view(channels_last(test.images))
    reference = gaussian_of(view.features)
    assert view.probabilities is not None
    accuracy = float((view.probabilities.argmax(1) == test.labels).mean())
    figures = [
        Figure(name="extractor: accuracy on the test set", values=[accuracy], at_least=ACCURACY),
        Figure(name="test set: sure", values=[classes(view).sure]),
        *graded("held-out images", extractor.view(channels_last(real)), reference),
    ]
    for name, images in samples.items():
        limits = (LEAST_SURE[name], RAREST, COMMONEST)
        figures += graded(name, extractor.view(images), reference, *limits)
    return finish("quality", figures, setup(options.n, extractor, test.images), options.out)


def digits(name: str, path: Path, n: int) -> Pixels:
    """The first `n` images of a file that `difftool sample` wrote; uint8 [n, 28, 28, 1]."""
    if name not in LEAST_SURE:
        raise UsageError(f"no target for {name!r}", f"--samples NAME=FILE, of {list(LEAST_SURE)}")
    images = read_samples(path)
    if images.shape[1:] != (28, 28, 1) or len(images) < n:
        raise UsageError(f"{path} holds images {images.shape}", f"draw {n} of 28x28x1, as npz")
    return images[:n]


def channels_last(images: Pixels) -> Pixels:
    """Pixels [N, C, H, W] as [N, H, W, C]."""
    return images.transpose(0, 2, 3, 1)


def classes(view: View) -> Classes:
    """What the shipped extractor's classifier says."""
    assert view.probabilities is not None
    return classes_of(view.probabilities)


def graded(
    name: str,
    view: View,
    reference: Gaussian,
    sure: float | None = None,
    rarest: float | None = None,
    commonest: float | None = None,
) -> list[Figure]:
    """What the extractor says of images as figures, with limits where they are given."""
    found = classes(view)
    least, most = min(found.shares), max(found.shares)
    low, high = found.shares.index(least), found.shares.index(most)
    distance = frechet_distance(gaussian_of(view.features), reference)
    return [
        Figure(name=f"{name}: sure", values=[found.sure], at_least=sure),
        Figure(name=f"{name}: rarest digit, {low}", values=[least], at_least=rarest),
        Figure(name=f"{name}: commonest digit, {high}", values=[most], at_most=commonest),
        Figure(name=f"{name}: Frechet distance", values=[distance]),
    ]


def setup(n: int, extractor: Extractor, test: Pixels) -> dict[str, object]:
    """What the figures depend on."""
    return {
        "n": n,
        "confidence": SURE,
        "test images": len(test),
        "extractor": extractor.sha256[:12],
    }


if __name__ == "__main__":
    sys.exit(main())
