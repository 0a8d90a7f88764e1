"""Train and export the extractors: two small convolutional classifiers of MNIST's digits.

    cd benchmarks
    python -m common.mnist_extractor --data FOLDER             # the shipped one
    python -m common.mnist_extractor --data FOLDER --second    # an independent one

The penultimate layer is the space in which sets of digits are compared. Both are trained on MNIST's
training set but for the last 1000 images, which stay unseen, as `difftool extractor` trains one for
any images. The first has its network, too. The second differs in architecture and in seed. It is
there to see if the first one's verdicts are its own: `judges.py` compares the two.
"""

import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.inside_train import FEATURES, Classifier, fit
from common.machine import ROOT
from common.mnist import HELD_OUT, SECOND, load_mnist
from common.models import export_plain
from common.report import parser

SHIPPED = ROOT / "src/difftool/extractors/mnist.onnx"
_STEPS = 1844  # four epochs


class Residual(nn.Module):
    """x + f(x), where f is two convolutions that keep the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = (_convolution(width, width, 3) for _ in range(2))
        self.layers = nn.Sequential(*first, nn.SiLU(), *second)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.layers(x))


class SecondClassifier(nn.Module):
    """A residual network with large strided kernels and a mean over places; 0.19 M parameters.

    Unlike `Classifier` it has no maxima, no ReLU and no layer that knows places.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Sequential(
            *_convolution(1, 24, 5, stride=2),
            nn.SiLU(),
            *_convolution(24, FEATURES, 5, stride=2),
            nn.SiLU(),
            Residual(FEATURES),
            Residual(FEATURES),
        )
        self.logits = nn.Linear(FEATURES, 10)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features [N, FEATURES] and probabilities [N, 10], or in training the logits."""
        features = self.places(pixels).mean((2, 3))
        logits = self.logits(features)
        return features, logits if self.training else logits.softmax(1)


def main() -> int:
    arguments = parser(__doc__, "data")
    arguments.add_argument("--second", action="store_true", help="the independent one")
    arguments.add_argument("--out", type=Path, metavar="FILE.onnx")
    options = arguments.parse_args()
    data = load_mnist(options.data, "train")
    images, labels = (torch.from_numpy(part[:-HELD_OUT]) for part in (data.values, data.labels))
    if options.second:
        out = options.out or SECOND
        classifier = fit(SecondClassifier, images, labels, steps=_STEPS, seed=1)
    else:
        out = options.out or SHIPPED
        first = partial(Classifier, (1, 28, 28), 10)
        classifier = fit(first, images, labels, steps=_STEPS, seed=0)
    out.parent.mkdir(parents=True, exist_ok=True)
    inputs = {"pixels": torch.zeros(2, 1, 28, 28)}
    export_plain(classifier, inputs, ("features", "probabilities"), out)
    return 0


def _convolution(channels: int, width: int, size: int, *, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, size, stride, size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(width)]


if __name__ == "__main__":
    sys.exit(main())
