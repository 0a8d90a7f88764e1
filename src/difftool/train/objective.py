"""The configured loss of a training step, with all that is drawn for it."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from difftool.diffusion.spec import ModelSpec
from difftool.train import draws, losses, variational
from difftool.train.config import TrainConfig


class Conditioned(nn.Module):
    """A network in the form that losses call: F(x, cond), or F(x, cond, label) with classes.

    It is one module, so that data-parallel training can wrap it.
    """

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network = network
        self.bf16 = precision == "bf16"

    def forward(self, x: Tensor, cond: Tensor, label: Tensor | None = None) -> Tensor:
        known = (cond,) if label is None else (cond, label)
        cast = torch.autocast(x.device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with cast:
            output = self.network(x, self.network.condition(*known))  # type: ignore[operator]
        result: Tensor = output.float()
        return result


class Objective:
    """A loss of (network, x0, labels, step, slots), with all that is drawn for each slot."""

    def __init__(self, config: TrainConfig, spec: ModelSpec, device: torch.device) -> None:
        self.spec, self.device = spec, device
        self.kind, self.vlb_weight = config.loss.kind, config.loss.vlb_weight
        self.seed, self.label_dropout = config.run.seed, config.loss.label_dropout
        self.table = losses.level_table(spec, device)
        self.posterior: variational.Posterior | None = None
        if spec.learned_variance:
            self.posterior = variational.posterior_table(spec, device)

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
        if labels is not None:
            dropped = draws.drops(self.seed, step, slots, self.label_dropout)
            labels = torch.where(dropped, self.spec.classes, labels)
            network = partial(network, label=labels.to(self.device))
        noise = draws.normal(self.seed, step, slots, self.spec.shape).to(self.device)
        levels = draws.levels(self.seed, step, slots, len(self.spec.schedule)).to(self.device)
        arguments = (network, x0, levels, noise, self.table)
        if self.posterior is not None:
            return variational.hybrid(*arguments, self.posterior, self.spec, self.vlb_weight)
        if self.kind == "sliced":
            directions = draws.projections(self.seed, step, slots, self.spec.shape)
            return losses.sliced(*arguments, directions.to(self.device))
        if self.kind == "implicit":
            return losses.implicit(*arguments)
        if self.kind == "denoising":
            return losses.denoising(*arguments)
        return losses.simple(*arguments)
