"""Caveats: on the programs that were measured to be poor, and on none that were measured good.

The Frechet distances in the comments were measured with earlier models of MNIST that had these
noise levels; real images reached 1.4.
"""

from typing import Any

import numpy as np
import pytest

from difftool.diffusion import ModelSpec, Program, caveats, samplers, schedules
from difftool.diffusion.columns import Column
from difftool.diffusion.invariant import noise_before_last
from difftool.diffusion.samplers import SAMPLERS
from difftool.runtime import open_bundle


class Ncsn:
    """A model with the levels and the sampler of NCSN (Song and Ermon 2019), for MNIST."""

    spec = ModelSpec(
        shape=(1, 28, 28),
        schedule=schedules.geometric(levels=10, sigma_min=0.01, sigma_max=1.0),
        parameterization="scaled_score",
        cond="level",
        data_range=(0.0, 1.0),
    )

    def default_program(self) -> Program:
        return samplers.annealed_langevin(self.spec, steps=1000, step_size=2e-5)


VP, DROWNED = (open_bundle(name) for name in ("ddpm-mnist", "ncsn-mnist"))
VE = Ncsn()


def str_of(value: Any) -> str:
    return value.name if isinstance(value, Program) else "said"


def found(bundle: Any, program: Program) -> str:
    return " / ".join(caveats(program, bundle.spec, bundle.default_program()))


@pytest.mark.parametrize("bundle", [VP, VE, DROWNED], ids=["ddpm", "ncsn", "ncsnv2"])
def test_none_about_the_measured_program(bundle: Any) -> None:
    assert found(bundle, bundle.default_program()) == ""


@pytest.mark.parametrize(
    "program",
    [
        samplers.ddpm(VP.spec, steps=10, variance="small", spacing="trailing"),  # 1.7
        samplers.ddpm(VP.spec, steps=500, variance="large"),
        samplers.ddim(VP.spec, steps=20),  # 1.8
        samplers.dpmpp_2m_sde(VP.spec, steps=10),  # 1.1
        samplers.unipc(VP.spec, steps=10),  # 1.3
        samplers.heun(VP.spec, steps=20),  # 1.3
        samplers.repaint(VP.spec, steps=50),
    ],
    ids=str_of,
)
def test_none_about_good_ones(program: Program) -> None:
    assert found(VP, program) == ""


@pytest.mark.parametrize("name", ["euler_ancestral", "ddim", "heun", "dpmpp_2m", "unipc"])
def test_a_model_whose_noise_drowns_data_takes_any_solver(name: str) -> None:
    program = SAMPLERS[name](DROWNED.spec, steps=20, spacing="karras")
    assert found(DROWNED, program) == ""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (samplers.ddpm(VP.spec, steps=20, variance="large"), "18.2 times the noise"),  # 7.9
        (samplers.ddim(VP.spec, steps=5), "each divides the noise by 6.9; take 10 or more"),
        (samplers.ddim(VP.spec, steps=1), "with so few steps, 1,"),
        (samplers.langevin(VP.spec, steps=1000), "noise of sigma 0.01"),
    ],
    ids=str_of,
)
def test_a_poor_program_of_the_ddpm(program: Program, said: str) -> None:
    assert said in found(VP, program)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (samplers.annealed_langevin(VE.spec, steps=20), "it takes 2 steps at each"),  # 177
        (samplers.annealed_langevin(VE.spec, steps=50), "measured with 100"),  # 18
        (samplers.ddim(VE.spec, steps=10), "noise of sigma 1,"),  # 36
        (samplers.consistent_annealed(VE.spec, steps=20), "noise of sigma 1,"),  # 31
        (samplers.predictor_corrector(VE.spec), "it takes 2 steps at each"),  # 51
        (samplers.langevin(VE.spec, steps=1000), "noise of sigma 0.01,"),
    ],
    ids=str_of,
)
def test_a_poor_program_of_the_ncsn(program: Program, said: str) -> None:
    assert said in found(VE, program)


def test_a_cause_is_said_once() -> None:
    """A program too short on its levels also leaves noise, and starts where it should not."""
    program = samplers.annealed_langevin(VE.spec, steps=20)
    assert len(caveats(program, VE.spec, VE.default_program())) == 1


def test_a_model_that_is_made_for_few_steps() -> None:
    default = samplers.ddim(VP.spec, steps=2)
    assert caveats(default, VP.spec, default) == ()
    (said,) = caveats(samplers.ddim(VP.spec, steps=1), VP.spec, default)
    assert "with so few steps, 1," in said


def test_given_data_with_noise_is_a_right_start() -> None:
    part = VE.spec.up_to(0.5)
    program = samplers.ddim(part, steps=4)
    assert program.start.kind == "data"
    assert caveats(program, part, VE.default_program()) == ()


def test_data_without_bounds_have_no_size() -> None:
    levels = schedules.geometric(levels=10, sigma_min=0.1, sigma_max=1.0)
    spec = ModelSpec(shape=(2,), schedule=levels, parameterization="score", cond="level")
    assert caveats(samplers.ddim(spec), spec, samplers.annealed_langevin(spec)) == ()


@pytest.mark.parametrize(
    "name", ["ddpm", "annealed_langevin", "consistent_annealed", "dpmpp_2m_sde", "plms"]
)
def test_noise_of_a_perfect_denoiser(name: str) -> None:
    """Against a simulation of the rows' formula on many numbers, with x0 = 0 and so D = 0."""
    program = SAMPLERS[name](VE.spec, steps=10)
    draw, count = np.random.default_rng(0), 40_000
    low, high = program.start.low, program.start.high
    uniform = program.start.kind == "uniform"
    x = draw.uniform(low, high, count) if uniform else draw.normal(0, high, count)
    history = np.zeros((program.history, count))
    for row in program.table[:-1]:
        network = -row[Column.C_SKIP] * x / row[Column.C_OUT]
        noise = row[Column.D] * np.exp(row[Column.LOGVAR_MIN] / 2) * draw.normal(size=count)
        after = row[Column.A] * x + row[Column.G] * network + row[Column.HISTORY :] @ history
        x, history = after + noise, np.vstack([row[Column.E] * x, history[:-1]])
    measured = np.sqrt(np.mean(x**2)) / program.targets[-2][1]
    assert noise_before_last(program) == pytest.approx(measured, rel=0.03)
