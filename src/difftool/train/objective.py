"""The configured loss of a training step, with all that is drawn for it."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from difftool.diffusion.spec import ModelSpec
from difftool.networks import raw_output
from difftool.train import draws, losses, variational
from difftool.train.config import TrainConfig

HALVES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The numbers of networks by `run.precision`, if they are not float32."""


class Conditioned(nn.Module):
    """A network in the form that losses call: F(x, cond), or F(x, cond, label) with classes.

    It is one module, so that data-parallel training can wrap it.
    """

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network = network
        self.reduced = HALVES.get(precision)

    def forward(self, x: Tensor, cond: Tensor, label: Tensor | None = None) -> Tensor:
        known = (cond,) if label is None else (cond, label)
        with torch.autocast(x.device.type, self.reduced) if self.reduced else nullcontext():
            return raw_output(self.network, x, *known).float()


class Objective:
    """A loss of (network, x0, labels, step, slots), with all that is drawn for each slot."""

    def __init__(self, config: TrainConfig, spec: ModelSpec, device: torch.device) -> None:
        self.loss, self.seed = config.loss, config.run.seed
        self.spec, self.device = spec, device
        self.table = losses.level_table(spec, device)
        self.posterior = (
            variational.posterior_table(spec, device) if spec.learned_variance else None
        )

    def __call__(
        self,
        network: Callable[..., Tensor],
        x0: Tensor,
        labels: Tensor | None,
        step: int,
        slots: draws.Indices,
    ) -> Tensor:
        """Return the losses of clean samples x0 [N, *S] in `slots` [N] of a step; [N].

        The network is a function of x and cond and, if there are labels int64 [N], of label.
        """
        of_step, shape = (self.seed, step, slots), self.spec.shape
        if labels is not None:
            dropped = draws.drops(*of_step, self.loss.label_dropout)
            labels = torch.where(dropped, self.spec.classes, labels)
            network = partial(network, label=labels.to(self.device))
        noise = draws.normal(*of_step, shape).to(self.device)
        levels = draws.levels(*of_step, len(self.spec.schedule)).to(self.device)
        row = self.table.at(levels, x0.ndim)
        if self.posterior is not None:
            posterior = self.posterior.at(levels, x0.ndim)
            weight = self.loss.vlb_weight
            return variational.hybrid(network, x0, noise, row, levels, posterior, self.spec, weight)
        if self.loss.kind == "sliced":
            directions = draws.projections(*of_step, shape).to(self.device)
            return losses.sliced(network, x0, noise, row, directions)
        plain = {
            "simple": losses.simple,
            "denoising": losses.denoising,
            "implicit": losses.implicit,
        }
        found = plain[self.loss.kind](network, x0, noise, row)
        if self.loss.min_snr is None:
            return found
        return found * losses.min_snr(row, self.loss.min_snr)
