"""Models whose network is known exactly, and a program run on them in float64."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from difftool.diffusion import schedules
from difftool.diffusion.columns import Column
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.diffusion.spacing import visited
from difftool.diffusion.spec import ModelSpec
from difftool.runtime.backends.reference import Reference
from tests.oracles.plain_loops import Array, Denoiser, Draw, mixture_denoiser

VP = ModelSpec(
    shape=(4,),
    schedule=schedules.linear(),
    parameterization="epsilon",
    cond="timestep",
    data_range=(-1.0, 1.0),
)
VE = ModelSpec(
    shape=(4,),
    schedule=schedules.geometric(levels=10, sigma_min=0.01, sigma_max=1),
    parameterization="score",
    cond="level",
    data_range=(0.0, 1.0),
)
EDM = ModelSpec(
    shape=(4,),
    schedule=schedules.karras(levels=40, sigma_min=0.002, sigma_max=80),
    parameterization="edm",
    cond="quarter_log_sigma",
)
NCSNV2 = ModelSpec(
    shape=(4,),
    schedule=schedules.geometric(levels=100, sigma_min=0.01, sigma_max=50),
    parameterization="scaled_score",
    cond="level",
)
# Without a data range, so that D is not clipped: a clipped D has a kink.
FREE = {
    "vp": replace(VP, data_range=None),
    "ve": replace(NCSNV2, schedule=schedules.geometric(levels=100, sigma_min=0.01, sigma_max=20)),
}
COSINE = replace(FREE["vp"], schedule=schedules.cosine(), parameterization="v")
MODELS = {"vp": VP, "ncsn": VE, "ncsnv2": NCSNV2, "edm": EDM}

START = np.random.default_rng(2).normal(size=(7, 4))


def make_network(
    spec: ModelSpec, denoise: Callable[..., Any] = mixture_denoiser
) -> Callable[..., Any]:
    """Return the network of this parameterization whose D is exactly `denoise`.

    Labels, if there are any, are handed on. Arrays may be of numpy or of PyTorch.
    """

    def network(scaled: Any, cond: Any, *label: Any) -> Any:
        level = _find_index(spec, float(cond[0]))
        alpha, sigma = (float(value) for value in spec.schedule.at(level))
        c_in, c_skip, c_out = (float(value) for value in spec.coefficients(level))
        x = scaled / c_in
        return (denoise(x, alpha, sigma, *label) - c_skip * x) / c_out

    return network


def _find_index(spec: ModelSpec, cond: float) -> float:
    if spec.cond == "timestep":
        return cond / spec.timestep_scale
    if spec.cond == "level":
        return len(spec.schedule) - 1 - cond
    return float(spec.schedule.find(-4 * cond))


def draws(seed: int = 1, shape: tuple[int, ...] = START.shape) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    while True:
        yield rng.normal(size=shape)


def same_draws() -> Draw:
    """Return a function that draws the noise of `run_table` again."""
    return draws().__next__


def run_table(
    spec: ModelSpec,
    program: Program,
    x: Array,
    denoise: Callable[..., Any] = mixture_denoiser,
    *,
    noise: Iterator[Array] | None = None,
    labels: Labels | None = None,
    known: tuple[Array, Array] | None = None,
) -> Array:
    """Run a program from x on the network whose D is `denoise`."""
    noise = draws() if noise is None else noise
    backend = Reference(make_network(spec, denoise), spec.shape, null_label=spec.classes)
    batch = backend.batch(program, len(x), labels)
    batch.start(x, known=known)
    for row in program.table:
        batch.step(next(noise) if row[Column.D] else None)
    return batch.x


def gap(
    spec: ModelSpec,
    program: Program,
    loop: Callable[..., Array],
    levels: Any,
    denoise: Denoiser,
    *,
    x: Array | None = None,
    **options: Any,
) -> float:
    """Return how far a program's run ends from a plain loop of these levels and options.

    Both start at x, by default the program's own start.
    """
    x = START * program.start.high if x is None else x
    return float(np.abs(run_table(spec, program, x) - loop(x, levels, denoise, **options)).max())


def denoiser(spec: ModelSpec, *, clip: bool = True) -> Denoiser:
    """Return the mixture's posterior mean, clipped to the model's data range if it has one."""

    def denoise(x: Array, alpha: float, sigma: float) -> Array:
        free = mixture_denoiser(x, alpha, sigma)
        return np.clip(free, *spec.data_range) if clip and spec.data_range else free

    return denoise


def level_pairs(spec: ModelSpec, steps: int, spacing: str) -> list[tuple[float, float]]:
    """Return (alpha, sigma) of the visited levels, the noisiest first, and of the clean end."""
    visits = [spec.schedule.at(index) for index in visited(spec.schedule, steps, spacing)]
    return [*((float(alpha), float(sigma)) for alpha, sigma in visits), (1.0, 0.0)]


def scaled(
    spec: ModelSpec, steps: int, spacing: str, *, clip: bool
) -> tuple[list[float], Denoiser]:
    """Return sigma / alpha of the levels visited, and D as a function of x / alpha."""
    levels = level_pairs(spec, steps, spacing)[:-1]
    alphas = {sigma / alpha: (alpha, sigma) for alpha, sigma in levels}

    def denoise(y: Array, _: float, ratio: float) -> Array:
        alpha, sigma = alphas[ratio]
        return denoiser(spec, clip=clip)(alpha * y, alpha, sigma)

    return list(alphas), denoise


def gaussian_denoiser(mean: Any, covariance: Array) -> Denoiser:
    """Return the posterior mean of the data N(mean, covariance)."""

    def denoise(x: Array, alpha: float, sigma: float) -> Array:
        noisy = alpha**2 * covariance + sigma**2 * np.eye(len(covariance))
        return mean + (x - alpha * mean) @ np.linalg.inv(noisy) @ (alpha * covariance)

    return denoise
