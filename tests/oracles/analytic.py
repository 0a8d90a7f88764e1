"""Models whose network is known exactly, and a program run on them in float64."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion import schedules
from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.diffusion.spacing import visited
from difftool.diffusion.spec import ModelSpec
from difftool.runtime.backends.reference import Reference
from tests.oracles import plain_loops

Array = NDArray[np.float64]

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

START = np.random.default_rng(2).normal(size=(7, 4))


def network_of(spec: ModelSpec) -> Callable[[Array, Array], Array]:
    """The network of this parameterization whose D is the mixture's posterior mean, exactly."""

    def network(scaled: Array, cond: Array) -> Array:
        level = _index_of(spec, float(cond[0]))
        alpha, sigma = (float(value) for value in spec.schedule.at(level))
        c_in, c_skip, c_out = spec.coefficients(level)
        x = scaled / c_in
        return (plain_loops.mixture_denoiser(x, alpha, sigma) - c_skip * x) / c_out

    return network


def _index_of(spec: ModelSpec, cond: float) -> float:
    if spec.cond == "timestep":
        return cond / spec.timestep_scale
    if spec.cond == "level":
        return len(spec.schedule) - 1 - cond
    return float(spec.schedule.find(-4 * cond))


def draws() -> Iterator[Array]:
    rng = np.random.default_rng(1)
    while True:
        yield rng.normal(size=START.shape)


def run_table(spec: ModelSpec, program: Program, x: Array) -> Array:
    batch = Reference(network_of(spec), spec.shape).batch(program, len(x))
    batch.start(x)
    noise = draws()
    for row in program.table:
        batch.step(next(noise) if row[Column.D] else None)
    return batch.x


def denoiser(spec: ModelSpec, *, clip: bool = True) -> plain_loops.Denoiser:
    """The mixture's posterior mean, clipped to the data range where the model has one."""

    def denoise(x: Array, alpha: float, sigma: float) -> Array:
        free = plain_loops.mixture_denoiser(x, alpha, sigma)
        return np.clip(free, *spec.data_range) if clip and spec.data_range else free

    return denoise


def levels_of(spec: ModelSpec, steps: int, spacing: str) -> list[tuple[float, float]]:
    """(alpha, sigma) of the levels visited, from most to least noise, and the clean end."""
    visits = [spec.schedule.at(index) for index in visited(spec.schedule, steps, spacing)]
    return [*((float(alpha), float(sigma)) for alpha, sigma in visits), (1.0, 0.0)]
