"""Multistep consistency sampling against the plain loop of its paper."""

import numpy as np
import pytest

from difftool.diffusion.columns import Column
from difftool.diffusion.invariant import validate
from difftool.diffusion.samplers import consistency
from difftool.diffusion.spec import ModelSpec
from tests.oracles.analytic import EDM, NCSNV2, VP, denoiser, gap, level_pairs, same_draws
from tests.oracles.plain_loops import Array, Denoiser, Draw
from tests.oracles.plain_loops_ode import Levels

MODELS = {"vp": VP, "ncsnv2": NCSNV2, "edm": EDM}


def multistep(x: Array, levels: Levels, denoise: Denoiser, *, draw: Draw) -> Array:
    """Song et al. 2023, algorithm 1, on x / alpha and with epsilon = 0."""
    x0 = denoise(x, *levels[0])
    for alpha, sigma in levels[1:-1]:
        y = x0 + sigma / alpha * draw()
        x0 = denoise(alpha * y, alpha, sigma)
    return x0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("spacing", ["trailing", "karras"])
def test_a_table_is_the_papers_loop(steps: int, model: str, spacing: str) -> None:
    spec = MODELS[model]
    program = consistency(spec, steps=steps, spacing=spacing)
    levels, denoise = level_pairs(spec, steps, spacing), denoiser(spec)
    assert gap(spec, program, multistep, levels, denoise, draw=same_draws()) < 1e-10


@pytest.mark.parametrize("spec", MODELS.values(), ids=MODELS)
def test_a_perfect_denoiser_meets_every_level(spec: ModelSpec) -> None:
    program = consistency(spec, steps=5)
    assert program.exact_noise
    found = validate(program)
    assert max(found.signal_error, found.noise_error) < 1e-12


def test_two_steps_begin_at_the_most_noise_and_draw_once() -> None:
    program = consistency(VP)
    assert program.call.arguments["steps"] == 2
    assert program.conds.tolist() == [499.0, 999.0]
    assert np.count_nonzero(program.table[:, Column.D]) == 1
