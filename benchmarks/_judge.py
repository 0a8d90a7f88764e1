"""The judge of generated digits: a small convolutional classifier of MNIST."""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from _mnist import Labelled
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FEATURES = 64
_EPOCHS, _BATCH, _PEAK_LR = 4, 128, 4e-3
_SHIFT = 2  # pixels that training images are moved by at most: strokes count, not places


class Judge(nn.Module):
    """Pixels uint8 [N, 1, 28, 28] to logits [N, 10]; 0.12 M parameters."""

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

    def features(self, pixels: Tensor) -> Tensor:
        """The penultimate layer [N, FEATURES], in which distances between sets are measured."""
        return self.hidden(self.convolutions(pixels / 255))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.logits(self.dropout(self.features(pixels)))

    @torch.inference_mode()
    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Class probabilities [N, 10] and features [N, FEATURES] of any number of images."""
        features = torch.cat([self.features(part) for part in pixels.split(1000)])
        return self.logits(features).softmax(1), features


def open_judge(cache: Path, training: Labelled) -> Judge:
    """The judge whose weights are in `cache`; trained and kept there where the file is missing."""
    if not cache.is_file():
        judge = train_judge(training)
        cache.parent.mkdir(parents=True, exist_ok=True)
        save_file(judge.state_dict(), cache)
    judge = Judge()
    judge.load_state_dict(load_file(cache))
    return judge.eval()


def train_judge(data: Labelled) -> Judge:
    """A judge trained from seed 0; the same one for the same data, torch and thread count."""
    torch.manual_seed(0)
    judge = Judge()
    steps = _EPOCHS * -(-len(data.images) // _BATCH)
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=1e-2)
    course = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_LR, total_steps=steps)
    for epoch in range(_EPOCHS):
        for index in torch.randperm(len(data.images)).split(_BATCH):
            loss = F.cross_entropy(judge(_shift(data.images[index])), data.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            course.step()
        print(f"judge: trained {epoch + 1} of {_EPOCHS} epochs", file=sys.stderr, flush=True)
    return judge


def _block(channels: int, width: int, *, pool: bool = False) -> list[nn.Module]:
    layers = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
    return [*layers, *([nn.MaxPool2d(2)] if pool else []), nn.ReLU()]


def _shift(pixels: Tensor) -> Tensor:
    """A batch moved by one random whole number of pixels each way; the border is black."""
    down, right = torch.randint(0, 2 * _SHIFT + 1, (2,)).tolist()
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (_SHIFT,) * 4)[..., down : down + height, right : right + width]
