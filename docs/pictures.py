"""The pictures of README.md and docs/models.md: sample grids and training curves.

python docs/pictures.py
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from numpy.typing import NDArray
from PIL import Image

import difftool
from difftool.runtime.images import grid

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images"
MODELS = ("ddpm-mnist", "ncsn-mnist")
SCALE = 2  # screen pixels a pixel


def draw_grids() -> None:
    """Each model's first 64 samples of seed 0, and the README's 36 of each side by side."""
    halves = []
    for name in MODELS:
        model = difftool.load(name)
        pixels = 255 - difftool.to_uint8(model.sample(n=64, seed=0), model.spec)
        _save(grid(pixels, padding=3)[..., 0], IMAGES / f"{name}.png")
        halves.append(grid(pixels[:36], padding=3)[..., 0])
    gap = np.full((halves[0].shape[0], 24), 255, np.uint8)
    _save(np.concatenate([halves[0], gap, halves[1]], axis=1), IMAGES / "samples.png")


def draw_curves() -> None:
    """Each model's training loss against images seen, from the records kept in docs/data."""
    figure, axes = pyplot.subplots(1, len(MODELS), figsize=(9, 3), layout="constrained")
    for axis, name in zip(axes, MODELS, strict=True):
        lines = (DOCS / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        axis.plot([r["step"] for r in records], [r["loss"] for r in records], linewidth=1)
        axis.set(title=name, xlabel="step", ylabel="loss", yscale="log")
        axis.grid(alpha=0.3, which="both")
    figure.savefig(IMAGES / "training.png", dpi=110)
    pyplot.close(figure)


def _save(picture: NDArray[np.uint8], path: Path) -> None:
    image = Image.fromarray(picture)
    size = (image.width * SCALE, image.height * SCALE)
    image.resize(size, Image.Resampling.NEAREST).save(path, optimize=True)


if __name__ == "__main__":
    draw_grids()
    draw_curves()
