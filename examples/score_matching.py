"""The pictures and figures of docs/score-matching.md, in about a minute.

python examples/score_matching.py

The density is that of Song and Ermon (2019, section 3.2.2), so its score is known under any noise.
Programs run on that score in float64, and on networks that learn it here.
"""

import io
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import difftool
from difftool.data import toys
from difftool.diffusion import ModelSpec, Program, noise
from difftool.diffusion.samplers import annealed_langevin, langevin
from difftool.diffusion.schedules import geometric
from difftool.files import write_atomic, write_json
from difftool.plot import draw_program, draw_schedule, encode, score
from difftool.plot.plane import Window, arrows, dots, lattice, paths, show
from difftool.plot.style import DATA, INK, LEARNED, blank
from difftool.plot.trajectory import draw_strip, strip_labels, trace_frames
from difftool.runtime import Backend, Draws, Reference, run, start_noise
from difftool.train import TrainConfig, apply_overrides, load_checkpoint, preset, train
from difftool.verify import Eager

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import ContourSet
    from matplotlib.figure import Figure

Array = NDArray[np.floating]
Opened = tuple[Backend, ModelSpec]

DOCS = Path(__file__).resolve().parents[1] / "docs"
POINTS = 1280
START = "uniform(-8, 8)"
MODES, WEIGHTS = np.array([[-5.0, -5.0], [5.0, 5.0]]), np.array([0.2, 0.8])
WINDOW = Window(0.0, 0.0, 8.0)
EMPTY = 3.0  # farther than this from both modes there is next to no data
MIDDLE = 4  # the level of the learned score that is shown with noise
STRIP_ROWS = 1000

NOISY = preset("toy")
NOISELESS = apply_overrides(
    NOISY,
    [
        "schedule={kind = 'geometric', levels = 1, sigma_min = 0.1, sigma_max = 0.1}",
        "loss.kind=sliced",  # denoising has nothing to remove
        "optimizer.lr=5e-3",
        "ema.decay=0.99",
        "sampler={name = 'langevin', arguments = {step_size = 0.1}}",
        "run.steps=2000",
    ],
)


def true_score(x: Array, sigma: float) -> Array:
    """The score of 1/5 N((-5, -5), I) + 4/5 N((5, 5), I) under noise of `sigma`, at x [N, 2]."""
    offsets, variance = MODES - x[:, None], 1 + sigma**2
    exponents = -(offsets**2).sum(axis=-1) / (2 * variance)
    share = WEIGHTS * np.exp(exponents - exponents.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    return (share[..., None] * offsets).sum(axis=1) / variance


def density(x: Array) -> Array:
    """The density without noise at x [N, 2], in units of its highest value."""
    squares = ((MODES - x[:, None]) ** 2).sum(axis=-1)
    return (WEIGHTS * np.exp(-squares / 2)).sum(axis=1) / WEIGHTS.max()


def true_model(*, levels: int, sigma_min: float, sigma_max: float) -> Opened:
    """A backend whose network is the true score, and its spec."""
    spec = ModelSpec(
        shape=(2,),
        schedule=geometric(levels=levels, sigma_min=sigma_min, sigma_max=sigma_max),
        parameterization="score",
        cond="quarter_log_sigma",
    )
    return Reference(lambda x, cond: true_score(x, math.exp(4 * cond[0])), (2,)), spec


def learned_model(recipe: TrainConfig) -> Opened:
    """The same for a network trained by a recipe."""
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, folder, progress=False)
        trained = load_checkpoint(folder)
    return Eager(trained.network, trained.spec), trained.spec


# Noise of 0.001 changes the density's variance from 1 to 1.000001: its score is that of the data.
TRUE_NOISELESS = true_model(levels=1, sigma_min=1e-3, sigma_max=1e-3)
TRUE_NOISY = true_model(levels=10, sigma_min=1.0, sigma_max=20.0)


def plain(spec: ModelSpec) -> Program:
    """NCSN's toy setting: T = 1000 at one level, here the one of least noise, epsilon = 0.1."""
    return langevin(spec, steps=1000, step_size=0.1, start=START)


def annealed(spec: ModelSpec) -> Program:
    """NCSN's toy setting: T = 100 at each of ten levels, epsilon = 0.1."""
    return annealed_langevin(
        spec, steps=1000, step_size=0.1, convention="paper", denoise=False, start=START
    )


def states(backend: Backend, program: Program, count: int, seed: int = 0) -> Array:
    """All states of samples 0 .. count - 1 on their way, [R + 1, N, 2]."""
    batch, draws = backend.batch(program, count), Draws(seed, np.arange(count), (2,))
    seen = [start_noise(program, draws)]
    seen += [batch.x.copy() for _ in run(batch, program, draws)]
    return np.stack(seen)


def mass(points: Array) -> float:
    """The share of points [N, 2] in the mode at (5, 5)."""
    return float((points.sum(axis=1) > 0).mean())


def errors(found: Array, true: Array) -> Array:
    """|found - true| / |true| of scores [N, 2]; [N]."""
    return np.asarray(np.linalg.norm(found - true, axis=1) / np.linalg.norm(true, axis=1))


def is_empty(x: Array) -> NDArray[np.bool_]:
    """Tell which points [N, 2] lie in a place with next to no data."""
    return np.asarray(np.linalg.norm(MODES - x[:, None], axis=-1).min(axis=1) > EMPTY)


def measure_masses(learned: Opened) -> tuple[dict[str, Array], dict[str, float]]:
    """Samples of each kind, all from the same starts, and their mass in the mode at (5, 5)."""
    spec = learned[1]
    samples = {
        "data": toys.points("gaussians", 0, np.arange(POINTS)),
        "langevin": states(TRUE_NOISELESS[0], plain(TRUE_NOISELESS[1]), POINTS)[-1],
        "annealed": states(TRUE_NOISY[0], annealed(TRUE_NOISY[1]), POINTS)[-1],
        "langevin_learned": states(learned[0], plain(spec), POINTS)[-1],
        "annealed_learned": states(learned[0], annealed(spec), POINTS)[-1],
    }
    return samples, {f"mass_{name}": mass(points) for name, points in samples.items()}


def measure_errors(noisy: Opened, noiseless: Opened) -> dict[str, float]:
    """Median relative errors of the learned scores, near the modes and where there is no data."""
    points = lattice(WINDOW, 64)
    empty = is_empty(points)
    figures = {}
    for name, (backend, spec), level in (
        ("noiseless", noiseless, 0),
        ("noisy", noisy, MIDDLE),
        ("least_noise", noisy, 0),
    ):
        sigma = float(spec.schedule.sigma[level])
        error = errors(score(backend, spec, level, points), true_score(points, sigma))
        figures[f"error_{name}_near"] = float(np.median(error[~empty]))
        figures[f"error_{name}_empty"] = float(np.median(error[empty]))
    return figures


def draw_fields(learned: Opened) -> "Figure":
    """The density with its score, and samples with the score that a network learned."""
    points = lattice(WINDOW, 17)
    with blank(7.2, 3.8) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        shade(left, density(lattice(WINDOW, 128)), "Blues")
        arrows(left, WINDOW, points, true_score(points, 0.0))
        show(left, WINDOW, "the density and its score")
        dots(right, toys.points("gaussians", 0, np.arange(POINTS)))
        arrows(right, WINDOW, points, score(*learned, 0, points), LEARNED)
        show(right, WINDOW, "samples and learned score, sigma 1")
    return figure


def draw_empty(noisy: Opened, noiseless: Opened) -> "Figure":
    """Challenge 1: learned scores, and their error, with and without noise."""
    points, cells = lattice(WINDOW, 15), lattice(WINDOW, 64)
    with blank(8.6, 3.2) as figure:
        axes = figure.subplots(1, 3, sharey=True)
        shade(axes[0], density(lattice(WINDOW, 128)), "Blues")
        arrows(axes[0], WINDOW, points, true_score(points, 0.0))
        show(axes[0], WINDOW, "true score, no noise")
        for axis, opened, level in ((axes[1], noiseless, 0), (axes[2], noisy, MIDDLE)):
            sigma = float(opened[1].schedule.sigma[level])
            error = errors(score(*opened, level, cells), true_score(cells, sigma))
            shown = shade(axis, error, "Reds")
            arrows(axis, WINDOW, points, score(*opened, level, points))
            show(axis, WINDOW, f"learned score, sigma {sigma:.3g}")
        for axis in axes:
            circle_modes(axis)
        figure.colorbar(shown, ax=axes, label="relative error", shrink=0.85)
    return figure


def draw_trajectories() -> "Figure":
    """Ten samples on their way on the true score: Langevin dynamics, and annealed in two halves."""
    free = states(TRUE_NOISELESS[0], plain(TRUE_NOISELESS[1]), 10)
    led = states(TRUE_NOISY[0], annealed(TRUE_NOISY[1]), 10)
    half = len(led) // 2
    near, far = Window(0.0, 0.0, 10.0), Window(0.0, 0.0, 40.0)
    with blank(8.6, 3.2) as figure:
        axes = figure.subplots(1, 3)
        for axis, part, first, window, title in (
            (axes[0], free, 0, near, "Langevin"),
            (axes[1], led[: half + 1], 0, far, "annealed, sigma 20 to 5.28"),
            (axes[2], led[half:], half, near, "annealed, sigma 3.79 to 1"),
        ):
            shown = paths(axis, part)
            shown.set_array(first + shown.get_array())
            shown.set_clim(0, len(led) - 1)
            circle_modes(axis)
            show(axis, window, title)
        figure.colorbar(shown, ax=axes, label="row", shrink=0.85)
    return figure


def draw_weights(samples: dict[str, Array]) -> "Figure":
    """Challenge 2: samples, and how many of them are in the mode at (5, 5)."""
    titles = {
        "data": ("data", DATA),
        "langevin": ("Langevin,\ntrue score", INK),
        "annealed": ("annealed,\ntrue score", INK),
        "annealed_learned": ("annealed,\nlearned score", LEARNED),
    }
    with blank(8.6, 2.9) as figure:
        axes = figure.subplots(1, len(titles), sharey=True)
        for axis, (name, (title, colour)) in zip(axes, titles.items(), strict=True):
            dots(axis, samples[name], colour)
            show(axis, Window(0.0, 0.0, 10.0), title)
            axis.text(-9, 8, f"{mass(samples[name]):.3f}", fontsize=12, color=colour)
    return figure


def draw_forward() -> "Figure":
    """One digit under ever more noise, as ddpm-mnist and as ncsn-mnist add it."""
    models = [difftool.load(name) for name in ("ddpm-mnist", "ncsn-mnist")]
    digit = models[0].sample(
        difftool.samplers.ddim(models[0].spec, steps=50), n=1, seed=1, first_sample=5
    )
    drawn = noise.normal(0, 0, np.arange(1), digit.shape[1:])
    low, high = models[0].spec.data_range
    rows, labels = [], []
    for model in models:
        schedule, (least, most) = model.spec.schedule, model.spec.data_range
        clean = least + (digit - low) * (most - least) / (high - low)
        levels = np.linspace(0, len(schedule) - 1, 9).round().astype(int)
        noised = [clean, *(schedule.alpha[i] * clean + schedule.sigma[i] * drawn for i in levels)]
        pixels = [255 - difftool.to_uint8(x.astype(np.float32), model.spec) for x in noised]
        rows.append(np.stack(pixels))  # [T, 1, H, W, C]
        labels.append(["x0", *(f"{schedule.sigma[i]:.2g}" for i in levels)])
    above = [f"{ddpm}\n{ncsn}" for ddpm, ncsn in zip(*labels, strict=True)]
    above[0] = "sigma, DDPM\nNCSN"
    return draw_strip(np.concatenate(rows, axis=1), above)


def draw_denoising() -> "Figure":
    """Draw the clean digits that ddpm-mnist expects, step by step."""
    model = difftool.load("ddpm-mnist")
    program = difftool.samplers.ddpm(model.spec, steps=STRIP_ROWS, variance="large")
    steps, frames = trace_frames(model, program, n=4, seed=0)
    return draw_strip(255 - frames, strip_labels(program, steps))


def shade(axis: "Axes", values: Array, colours: str) -> "ContourSet":
    """Values [N] on a lattice in ten steps of colour, from white at 0 to the darkest at 1."""
    side = math.isqrt(len(values))
    x, y = lattice(WINDOW, side).T.reshape(2, side, side)
    steps = np.linspace(0, 1, 11)
    return axis.contourf(
        x, y, values.reshape(side, side), steps, cmap=colours, extend="max", zorder=0
    )


def circle_modes(axis: "Axes") -> None:
    """Circles around the modes, outside of which there is next to no data."""
    from matplotlib.patches import Circle

    for mode in MODES:
        axis.add_patch(Circle(tuple(mode), EMPTY, fill=False, color=INK, linestyle=":", zorder=5))


def save(figure: "Figure", path: Path) -> None:
    """A PNG of few colours, so that it is small."""
    with Image.open(io.BytesIO(encode(figure, "png"))) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, "png", optimize=True)
    write_atomic(path, buffer.getvalue())


def main(docs: Path = DOCS) -> None:
    """Train, measure, draw; write into `docs`."""
    noisy, noiseless = learned_model(NOISY), learned_model(NOISELESS)
    samples, masses = measure_masses(noisy)
    figures = {**masses, **measure_errors(noisy, noiseless)}
    write_json(docs / "data" / "score-matching.json", figures)
    for name, figure in {
        "fields": draw_fields(noisy),
        "empty": draw_empty(noisy, noiseless),
        "trajectories": draw_trajectories(),
        "weights": draw_weights(samples),
        "program": draw_program(annealed(noisy[1])),
        "forward": draw_forward(),
        "schedule": draw_schedule(difftool.load("ddpm-mnist").spec.schedule),
        "denoising": draw_denoising(),
    }.items():
        save(figure, docs / "images" / "score-matching" / f"{name}.png")
    for name, value in figures.items():
        print(f"{name:24} {value:.3f}")


if __name__ == "__main__":
    main()
