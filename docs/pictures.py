"""Draw the pictures of README.md, docs/models.md and docs/tasks.md.

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
from difftool.cli import main
from difftool.diffusion import SamplerCall, compile_program
from difftool.runtime import grid

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images"
# Of each model, what draws well with few evaluations.
MODELS = {
    "ddpm-mnist": SamplerCall("dpmpp_2m_sde", {"steps": 20, "spacing": "trailing"}),
    "ncsn-mnist": SamplerCall("euler_ancestral", {"steps": 20, "spacing": "karras"}),
}
SCALE = 2  # screen pixels a pixel


def draw_grid() -> None:
    """Run the command that stands below the README's picture."""
    line = "sample --steps 1000 -n 16 --seed 0 --force --out"
    if main([*line.split(), str(IMAGES / "grid.png")]):
        raise SystemExit("difftool sample has failed")


def draw_grids() -> None:
    """Draw each model's first 64 samples of seed 0."""
    for name, call in MODELS.items():
        model = difftool.load(name)
        program = compile_program(model.spec, call)
        pixels = 255 - difftool.to_uint8(model.sample(program, n=64, seed=0), model.spec)
        _save(grid(pixels, padding=3)[..., 0], IMAGES / f"{name}.png")


def draw_tasks() -> None:
    """Draw digits, their upper halves, two fillings, starts from them, and a way between two."""
    model = difftool.load("ddpm-mnist")
    count = 9
    digits = model.sample(n=count, seed=0)
    upper = np.zeros(model.spec.shape, np.float32)
    upper[:, :14] = 1
    known = digits * upper + np.float32(-0.6) * (1 - upper)
    fill = difftool.samplers.repaint(model.spec, steps=100, jump=5, resamples=4)
    filled = [
        model.sample(fill, n=count, seed=seed, edit=difftool.edits.inpaint(digits, upper))
        for seed in (1, 2)
    ]
    alike = model.sample(difftool.samplers.ddpm(model.spec.up_to(0.4)), n=count, init=digits)
    way = model.sample(difftool.samplers.ddim(model.spec), n=count, between=(4, 11))
    rows = np.concatenate([digits, known, *filled, alike, way])
    pixels = 255 - difftool.to_uint8(rows, model.spec)
    _save(grid(pixels, columns=count, padding=3)[..., 0], IMAGES / "tasks.png")


def draw_curves() -> None:
    """Draw each model's training loss by steps, from the records kept in docs/data."""
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
    draw_grid()
    draw_grids()
    draw_tasks()
    draw_curves()
