"""The diffusers library's schedulers and these tables: a whole run on the same exact network."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from difftool.diffusion import samplers, schedules
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from tests.oracles.analytic import START, VP, Array, draws, network_of, run_table

diffusers = pytest.importorskip("diffusers")
# Their schedulers hand tensors to numpy in a way that numpy 2 would rather have go.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FREE = ModelSpec.from_dict({**VP.to_dict(), "data_range": None})
VE = ModelSpec(
    shape=(4,),
    schedule=schedules.geometric(levels=100, sigma_min=0.01, sigma_max=50),
    parameterization="score",
    cond="level",
)
NETWORKS = {id(spec): network_of(spec) for spec in (VP, VE)}


@pytest.fixture(autouse=True)
def _same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: Iterator[Array] = draws()

    def randn_tensor(shape: tuple[int, ...], **_: object) -> torch.Tensor:
        return torch.from_numpy(next(drawn)).float().reshape(shape)

    for name in ("ddpm", "ddim", "dpmsolver_multistep", "euler_ancestral_discrete", "sde_ve"):
        monkeypatch.setattr(f"diffusers.schedulers.scheduling_{name}.randn_tensor", randn_tensor)


def network(spec: ModelSpec, x: torch.Tensor, cond: float) -> torch.Tensor:
    output = NETWORKS[id(spec)](x.numpy().astype(np.float64), np.array([cond]))
    return torch.from_numpy(output).float()


def scheduler_run(scheduler: Any, x: Array, steps: int, arguments: dict[str, Any]) -> Array:
    """What a diffusers pipeline does, from x at the noisiest level of the VP model."""
    scheduler.set_timesteps(steps)
    sample = torch.from_numpy(x).float()
    if hasattr(scheduler, "is_scale_input_called") or hasattr(scheduler, "state_in_first_order"):
        sample = sample * (float(scheduler.sigmas[0]) ** 2 + 1) ** 0.5  # their state is x / alpha
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, timestep)
        output = network(VP, scaled, float(timestep))
        sample = scheduler.step(output, timestep, sample, **arguments).prev_sample
    return sample.numpy()


@pytest.mark.parametrize(
    ("scheduler", "settings", "steps", "step_arguments", "compiled"),
    [
        pytest.param(
            "DDPMScheduler", {"variance_type": f"fixed_{variance}"}, 50, {},
            lambda variance=variance: samplers.ddpm(
                VP, steps=50, spacing="leading", variance=variance
            ),
            id=f"ddpm fixed_{variance}",
        )
        for variance in ("small", "large")
    ]
    + [
        pytest.param(
            "DDIMScheduler", {}, 50, {"eta": 0.0},
            lambda: samplers.ddim(VP, steps=50, spacing="leading", raw_epsilon=True),
            id="ddim",
        ),
        pytest.param(
            "DDIMScheduler", {}, 50, {"eta": 1.0, "use_clipped_model_output": True},
            lambda: samplers.ddim(VP, steps=50, spacing="leading", eta=1.0),
            id="ddim eta=1",
        ),
    ]
    # These do not clip. Trailing is their one spacing that counts levels as here: in the others the
    # clean end takes the place of a level. From 15 steps on only the last row's order is lowered.
    + [
        pytest.param(
            "DPMSolverMultistepScheduler",
            {"timestep_spacing": "trailing", "solver_order": order},
            25, {},
            lambda order=order: samplers.SAMPLERS[f"dpmpp_{order}m"](
                FREE, steps=25, spacing="trailing"
            ),
            id=f"dpmpp_{order}m",
        )
        for order in (2, 3)
    ]
    + [
        pytest.param(
            "DPMSolverMultistepScheduler",
            {"timestep_spacing": "trailing", "algorithm_type": "sde-dpmsolver++"},
            25, {},
            lambda: samplers.dpmpp_2m_sde(FREE, steps=25, spacing="trailing"),
            id="dpmpp_2m_sde",
        )
    ]
    + [
        pytest.param(
            "UniPCMultistepScheduler",
            {
                "timestep_spacing": "trailing",
                "solver_order": order,
                "solver_type": "bh2",
                "final_sigmas_type": "zero",
            },
            25, {},
            lambda order=order: samplers.unipc(FREE, steps=25, order=order, spacing="trailing"),
            id=f"unipc-{order} bh2",
        )
        for order in (1, 2, 3)
    ]
    # Their linspace does not round, and interpolates sigma; 37 gaps of 27 need neither.
    + [
        pytest.param(
            "HeunDiscreteScheduler", {"timestep_spacing": "linspace"}, 38, {},
            lambda: samplers.heun(FREE, steps=75),
            id="heun",
        ),
        pytest.param(
            "HeunDiscreteScheduler", {"use_karras_sigmas": True}, 20, {},
            lambda: samplers.heun(FREE, steps=39, spacing="karras"),
            id="heun karras",
        ),
        pytest.param(
            "EulerDiscreteScheduler", {"timestep_spacing": "linspace"}, 38, {},
            lambda: samplers.euler(FREE, steps=38),
            id="euler",
        ),
        pytest.param(
            "EulerDiscreteScheduler", {"use_karras_sigmas": True}, 20, {},
            lambda: samplers.euler(FREE, steps=20, spacing="karras"),
            id="euler karras",
        ),
        pytest.param(
            "EulerAncestralDiscreteScheduler", {"timestep_spacing": "linspace"}, 38, {},
            lambda: samplers.euler_ancestral(FREE, steps=38),
            id="euler_ancestral",
        ),
        # Their last level before the clean one is 0, its alpha 1.
        pytest.param(
            "PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}, 50, {},
            lambda: samplers.plms(FREE, steps=51, spacing="leading"),
            id="plms",
        ),
    ],
)  # fmt: skip
def test_a_whole_run_agrees(
    scheduler: str,
    settings: dict[str, Any],
    steps: int,
    step_arguments: dict[str, Any],
    compiled: Callable[[], Program],
) -> None:
    settings = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", **settings}
    theirs = scheduler_run(getattr(diffusers, scheduler)(**settings), START, steps, step_arguments)
    ours = run_table(VP, compiled(), START)
    assert np.abs(theirs - ours).max() < 1e-4


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
