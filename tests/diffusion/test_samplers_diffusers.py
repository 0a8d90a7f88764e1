"""The diffusers library's schedulers and these tables: a whole run on the same exact network."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from difftool.diffusion import samplers
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from tests.oracles import analytic
from tests.oracles.analytic import NCSNV2, START, VP, draws, make_network, run_table
from tests.oracles.plain_loops import Array

diffusers = pytest.importorskip("diffusers")
# Their schedulers hand tensors to numpy in a way that numpy 2 would rather have go.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FREE = analytic.FREE["vp"]
VE = replace(NCSNV2, parameterization="score")


@pytest.fixture(autouse=True)
def _same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draws()

    def randn_tensor(shape: tuple[int, ...], **_: object) -> torch.Tensor:
        return torch.from_numpy(next(drawn)).float().reshape(shape)

    for name in ("ddpm", "ddim", "dpmsolver_multistep", "euler_ancestral_discrete", "sde_ve"):
        monkeypatch.setattr(f"diffusers.schedulers.scheduling_{name}.randn_tensor", randn_tensor)


def network(spec: ModelSpec, x: torch.Tensor, cond: float) -> torch.Tensor:
    output = make_network(spec)(x.numpy().astype(np.float64), np.array([cond]))
    return torch.from_numpy(output).float()


def scheduler_run(scheduler: Any, x: Array, steps: int, arguments: dict[str, Any]) -> Array:
    """Sample as a diffusers pipeline does, from x at the noisiest level of the VP model."""
    scheduler.set_timesteps(steps)
    sample = torch.from_numpy(x).float()
    if hasattr(scheduler, "is_scale_input_called") or hasattr(scheduler, "state_in_first_order"):
        sample = sample * (float(scheduler.sigmas[0]) ** 2 + 1) ** 0.5  # their state is x / alpha
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, timestep)
        output = network(VP, scaled, float(timestep))
        sample = scheduler.step(output, timestep, sample, **arguments).prev_sample
    return sample.numpy()


# Their scheduler, its settings and a step's, their number of steps, and our program.
Run = tuple[str, dict[str, Any], dict[str, Any], int, Callable[[], Program]]
LEADING: dict[str, Run] = {
    "ddpm fixed_small": (
        "DDPM", {"variance_type": "fixed_small"}, {}, 50,
        partial(samplers.ddpm, VP, steps=50, spacing="leading", variance="small"),
    ),
    "ddpm fixed_large": (
        "DDPM", {"variance_type": "fixed_large"}, {}, 50,
        partial(samplers.ddpm, VP, steps=50, spacing="leading", variance="large"),
    ),
    "ddim": (
        "DDIM", {}, {"eta": 0.0}, 50,
        partial(samplers.ddim, VP, steps=50, spacing="leading", raw_epsilon=True),
    ),
    "ddim eta=1": (
        "DDIM", {}, {"eta": 1.0, "use_clipped_model_output": True}, 50,
        partial(samplers.ddim, VP, steps=50, spacing="leading", eta=1.0),
    ),
    # Their last level before the clean one is 0, its alpha 1. This one does not clip.
    "plms": (
        "PNDM", {"skip_prk_steps": True, "set_alpha_to_one": True}, {}, 50,
        partial(samplers.plms, FREE, steps=51, spacing="leading"),
    ),
}  # fmt: skip
# These do not clip. Trailing is their one spacing that counts levels as here: in the others the
# clean end takes the place of a level. From 15 steps on only the last row's order is lowered.
TRAILING: dict[str, Run] = {
    name: (
        scheduler, {"timestep_spacing": "trailing", **settings}, {}, 25,
        partial(sampler, FREE, steps=25, spacing="trailing"),
    )
    for name, scheduler, settings, sampler in [
        ("dpmpp_2m", "DPMSolverMultistep", {"solver_order": 2}, samplers.dpmpp_2m),
        ("dpmpp_3m", "DPMSolverMultistep", {"solver_order": 3}, samplers.dpmpp_3m),
        (
            "dpmpp_2m_sde", "DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"},
            samplers.dpmpp_2m_sde,
        ),
        *(
            (
                f"unipc-{order} bh2", "UniPCMultistep",
                {"solver_order": order, "solver_type": "bh2", "final_sigmas_type": "zero"},
                partial(samplers.unipc, order=order),
            )
            for order in (1, 2, 3)
        ),
    ]
}  # fmt: skip
# Their linspace does not round, and interpolates sigma; 37 gaps of 27 need neither.
LINSPACE, KARRAS = {"timestep_spacing": "linspace"}, {"use_karras_sigmas": True}
SIGMAS: dict[str, Run] = {
    "heun": ("HeunDiscrete", LINSPACE, {}, 38, partial(samplers.heun, FREE, steps=75)),
    "heun karras": (
        "HeunDiscrete", KARRAS, {}, 20, partial(samplers.heun, FREE, steps=39, spacing="karras")
    ),
    "euler": ("EulerDiscrete", LINSPACE, {}, 38, partial(samplers.euler, FREE, steps=38)),
    "euler karras": (
        "EulerDiscrete", KARRAS, {}, 20, partial(samplers.euler, FREE, steps=20, spacing="karras")
    ),
    "euler_ancestral": (
        "EulerAncestralDiscrete", LINSPACE, {}, 38,
        partial(samplers.euler_ancestral, FREE, steps=38),
    ),
}  # fmt: skip


@pytest.mark.parametrize("run", [*LEADING, *TRAILING, *SIGMAS])
def test_a_whole_run_agrees(run: str) -> None:
    kind, settings, options, steps, compiled = (LEADING | TRAILING | SIGMAS)[run]
    betas = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    scheduler = getattr(diffusers, f"{kind}Scheduler")(**betas, **settings)
    theirs = scheduler_run(scheduler, START, steps, options)
    assert np.abs(theirs - run_table(VP, compiled(), START)).max() < 1e-4


@pytest.mark.parametrize("corrections", [0, 1])
def test_a_whole_run_of_the_ve_sde_agrees(corrections: int) -> None:
    steps = len(VE.schedule)
    scheduler = diffusers.ScoreSdeVeScheduler(
        snr=0.16, sigma_min=0.01, sigma_max=50.0, sampling_eps=1e-5
    )
    # As their pipeline, but for the timesteps: there truncation repeats and leaves out levels.
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    scheduler.discrete_sigmas = torch.from_numpy(VE.schedule.sigma).float()
    sample = torch.from_numpy(START * 50).float()
    for level in range(steps - 1, -1, -1):
        cond = float(steps - 1 - level)
        for _ in range(corrections):
            gradient = network(VE, sample, cond)
            sample = scheduler.step_correct(gradient, sample).prev_sample
        time = torch.tensor((level + 0.5) / (steps - 1))
        step = scheduler.step_pred(network(VE, sample, cond), time, sample)
        sample = step.prev_sample
    program = (
        samplers.predictor_corrector(VE, corrections=corrections, corrector="reference")
        if corrections
        else samplers.reverse_diffusion(VE)
    )
    ours = run_table(VE, program, START * 50)
    assert np.abs(step.prev_sample_mean.numpy() - ours).max() < 1e-4
