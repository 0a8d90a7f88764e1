"""Train and export the extractors: two small convolutional classifiers of MNIST's digits.

    cd benchmarks
    python -m common.mnist_extractor --data FOLDER             # the shipped one
    python -m common.mnist_extractor --data FOLDER --second    # an independent one

The penultimate layer is the space in which sets of digits are compared. Both are trained on MNIST's
training set but for the last 1000 images, which stay unseen, and exported as one ONNX file with the
interface that `difftool.evaluate.extractor` describes. The second differs in architecture and in
seed. It is there to see if the first one's verdicts are its own: `judges.py` compares the two.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.machine import ROOT
from common.mnist import HELD_OUT, SECOND, load_mnist
from common.models import export_plain
from common.report import parser

SHIPPED = ROOT / "src/difftool/extractors/mnist.onnx"
FEATURES = 64
_EPOCHS, _BATCH, _PEAK_LR = 4, 128, 4e-3
_SHIFT = 2  # pixels that training images are moved by at most: strokes count, not places


class Classifier(nn.Module):
    """A network from pixels float32 [N, 1, 28, 28] in 0 .. 1; it has 0.12 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *_block(1, 16, pool=True), *_block(16, 32), *_block(32, 32, pool=True), nn.Flatten()
        )
        self.hidden = nn.Sequential(
            nn.Linear(32 * 7 * 7, FEATURES, bias=False), nn.BatchNorm1d(FEATURES), nn.ReLU()
        )
        self.dropout = nn.Dropout(0.2)
        self.logits = nn.Linear(FEATURES, 10)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features [N, FEATURES] and probabilities [N, 10], or in training the logits."""
        features = self.hidden(self.convolutions(pixels))
        logits = self.logits(self.dropout(features))
        return features, logits if self.training else logits.softmax(1)


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
        classifier, out = train(SecondClassifier, images, labels, seed=1), options.out or SECOND
    else:
        classifier, out = train(Classifier, images, labels, seed=0), options.out or SHIPPED
    out.parent.mkdir(parents=True, exist_ok=True)
    inputs = {"pixels": torch.zeros(2, 1, 28, 28)}
    export_plain(classifier, inputs, ("features", "probabilities"), out)
    return 0


def train(
    build: Callable[[], nn.Module], images: Tensor, labels: Tensor, *, seed: int
) -> nn.Module:
    """Train a classifier; the same for the same seed, data, torch and thread count."""
    torch.manual_seed(seed)
    classifier = build()
    steps = _EPOCHS * -(-len(images) // _BATCH)
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=1e-2)
    course = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_LR, total_steps=steps)
    for epoch in range(_EPOCHS):
        for index in torch.randperm(len(images)).split(_BATCH):
            _, logits = classifier(_shift(images[index] / 255))
            loss = F.cross_entropy(logits, labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            course.step()
        print(f"trained {epoch + 1} of {_EPOCHS} epochs", file=sys.stderr, flush=True)
    return classifier


def _block(channels: int, width: int, *, pool: bool = False) -> list[nn.Module]:
    layers = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
    return [*layers, *([nn.MaxPool2d(2)] if pool else []), nn.ReLU()]


def _convolution(channels: int, width: int, size: int, *, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, size, stride, size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(width)]


def _shift(pixels: Tensor) -> Tensor:
    """Move a batch by one random whole number of pixels each way; the border is black."""
    down, right = torch.randint(0, 2 * _SHIFT + 1, (2,)).tolist()
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (_SHIFT,) * 4)[..., down : down + height, right : right + width]


if __name__ == "__main__":
    sys.exit(main())
