"""Rehearse the first step of a training with sizes alone, without any numbers.

So a misfit is found before a network is made, a folder is written or an hour is spent.
"""

import os
from typing import Final

import numpy as np
import torch
from torch import Tensor

from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ResourceError, UsageError, first_line
from difftool.networks import MISFITS, build_network, num_parameters
from difftool.train.config import TrainConfig
from difftool.train.data import Data
from difftool.train.distillation.config import DistillConfig
from difftool.train.objective import Conditioned, Objective

_SAMPLES: Final = 2
_FLOAT: Final = 4  # bytes
_COPIES: Final = 5  # the weights, their average, their gradients, and Adam's two moments
_HINTS: Final = {
    1: "for points choose the network mlp",
    3: "for images choose another network than mlp",
}


def rehearse(config: TrainConfig, spec: ModelSpec, call: NetworkCall, data: Data) -> None:
    """Send a batch through a network and its loss, and back.

    Raises:
        UsageError: the call makes no network, or one that cannot take samples of the data, or one
            whose output has the wrong shape.
        ResourceError: this machine's memory cannot hold the weights or a batch.
    """
    with torch.device("meta"):
        network = build_network(call)
    require_memory(num_parameters(network), config, data)
    channels, *size = spec.shape
    expected = (channels * (1 + spec.learned_variance), *size)
    conditioned = Conditioned(network, "no")

    def checked(x: Tensor, *known: Tensor, **label: Tensor) -> Tensor:
        output: Tensor = conditioned(x, *known, **label)
        if tuple(output.shape[1:]) != expected:
            raise UsageError(
                f"network {call.kind} makes {list(output.shape[1:])} of samples "
                f"{list(spec.shape)}, and the loss {config.loss.kind} takes {list(expected)}",
                "leave in_channels and out_channels out; they follow from the data",
            )
        return output

    # The exact trace takes a backward pass for each dimension; the sliced loss takes one like them.
    loss = config.loss.model_copy(update={"kind": "sliced"})
    sliced = config.model_copy(update={"loss": loss})
    objective = Objective(
        sliced if config.loss.kind == "implicit" else config, spec, torch.device("meta")
    )
    slots = np.arange(min(_SAMPLES, config.run.batch))
    x0, labels = data.batch(spec, config.run.seed, 0, config.run.batch, slots)
    try:
        objective(checked, x0.to("meta"), labels, 0, slots).mean().backward()
    except MISFITS as error:
        raise UsageError(
            f"network {call.kind} cannot take samples of {list(spec.shape)}: {first_line(error)}",
            _fitting(call, spec.shape) or _HINTS.get(len(spec.shape), "choose another network"),
        ) from error


def _fitting(call: NetworkCall, shape: tuple[int, ...]) -> str:
    """Return a hint with the next smaller size that every level of a network halves, or ""."""
    levels = call.arguments.get("multipliers")
    if len(shape) != 3 or call.kind == "mlp" or not isinstance(levels, list | tuple):
        return ""
    step = 1 << (len(levels) - 1)
    size = max(min(shape[1:]) // step, 1) * step
    return f"give `data.size={size}`, or fewer multipliers: each level but the last halves the size"


def require_memory(parameters: int, config: TrainConfig | DistillConfig, data: Data) -> None:
    """Raise ResourceError if a training is larger than all of this machine's memory."""
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return
    copies = 1 if torch.cuda.is_available() else _COPIES  # a GPU has memory of its own
    numbers = data.items[0].numel() * config.run.batch // config.optimizer.accumulate
    for what, needed, hint in (
        (f"a network of {parameters} weights", copies * parameters, "make it narrower"),
        (f"a batch of {config.run.batch}", numbers, "lower run.batch"),
    ):
        if needed * _FLOAT > there:
            raise ResourceError(
                f"{what} needs {needed * _FLOAT >> 30} GiB to train, of {there >> 30}", hint
            )
