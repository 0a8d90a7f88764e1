"""Two evaluations of a student are as good as fifty of its teacher, which is known exactly."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from difftool.diffusion import schedules
from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.samplers import compile_program
from difftool.diffusion.spec import ModelSpec
from difftool.evaluate.points import sliced_wasserstein
from difftool.networks.trained import Checkpoint
from difftool.train import losses
from difftool.train.config import parse_as
from difftool.train.distillation import distillation as distillation_module
from difftool.train.distillation.config import DistillConfig
from difftool.train.distillation.distillation import Distillation
from difftool.train.objective import Conditioned
from difftool.train.preview import run_program
from tests.oracles import plane

SPEC = ModelSpec(
    shape=(2,),
    schedule=schedules.linear(steps=100, beta_start=1e-3, beta_end=0.2),
    parameterization="v",
    cond="timestep",
    sigma_data=1.5,
)
FITTING, STEPS, STAGES, BATCH, RATE = 800, 2200, 5, 256, 4e-3
COUNT = 8000


def distance(network: nn.Module, call: SamplerCall) -> float:
    """Return how far samples are from points that were drawn otherwise."""
    drawn = run_program(network, compile_program(SPEC, call), SPEC, COUNT)
    return sliced_wasserstein(drawn, plane.points(COUNT, 1))


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    return plane.Exact(SPEC)


@pytest.fixture(scope="module")
def fitted(teacher: nn.Module) -> nn.Module:
    """The weights that a student starts from: it computes about what the teacher does."""
    torch.manual_seed(0)
    network, table = plane.Learner(SPEC), losses.level_table(SPEC)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    x0 = torch.from_numpy(plane.points(FITTING * BATCH, 2)).view(FITTING, BATCH, 2)
    for step in range(FITTING):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / FITTING)
        row = table.at(torch.randint(len(SPEC.schedule), (BATCH,)), 2)
        x = losses.perturb(x0[step], torch.randn(BATCH, 2), row)
        wanted, found = (net(x, net.condition(row.cond)) for net in (teacher, network))
        optimizer.zero_grad()
        (found - wanted).square().mean().backward()
        optimizer.step()
    return network


def student(method: str, teacher: nn.Module, fitted: nn.Module) -> tuple[nn.Module, SamplerCall]:
    config = parse_as(
        DistillConfig,
        {
            "teacher": "exact",
            "student": {"method": method, "steps": 2, "stages": STAGES},
            "data": {"source": "gaussians"},
            "optimizer": {"lr": RATE / 2, "warmup": 20, "decay": "linear"},
            "run": {"steps": STEPS, "batch": BATCH},
        },
    )
    known = Checkpoint(
        SPEC, teacher, NetworkCall("exact"), SamplerCall("ddim"), {}, 0, Path(), "ema"
    )
    distillation = Distillation(config, known, torch.device("cpu"))
    network = copy.deepcopy(fitted)
    optimizer = torch.optim.Adam(network.parameters())
    slots, conditioned = np.arange(BATCH), Conditioned(network, "no")
    x0 = torch.from_numpy(plane.points(STEPS * BATCH, 3)).view(STEPS, BATCH, 2)
    for step in range(STEPS):
        if distillation.begins_stage(step):
            distillation.renew(network)
        optimizer.param_groups[0]["lr"] = distillation.lr_at(step)
        optimizer.zero_grad()
        distillation(conditioned, x0[step], None, step, slots).mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
    return network, distillation.sampler


@pytest.mark.parametrize("method", ["consistency", "progressive"])
def test_two_evaluations_are_as_good_as_fifty(
    method: str, teacher: nn.Module, fitted: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation_module, "file_sha256", lambda path: "0" * 64)
    known = distance(teacher, SamplerCall("ddim", {"steps": 50}))
    network, call = student(method, teacher, fitted)
    assert distance(network, call) < 1.5 * known
    assert distance(fitted, call) > 3 * known  # what the student was before
    assert distance(teacher, SamplerCall("dpmpp_2m", {"steps": 2})) > 3 * known
