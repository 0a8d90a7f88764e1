"""The exponential moving average of a network's parameters."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """A moving average: average <- d * average + (1 - d) * parameter after every step.

    d is `decay`; with `warmup` it is min(decay, (1 + n) / (10 + n)) after n updates, so that the
    early average follows quickly. Buffers are constant, and are not averaged.
    """

    def __init__(self, network: nn.Module, *, decay: float, warmup: bool) -> None:
        self.decay, self.warmup = decay, warmup
        # Detached tensors share memory with the parameters, so they follow every step.
        self.parameters = {name: value.detach() for name, value in network.named_parameters()}
        self.average = {name: value.clone() for name, value in self.parameters.items()}

    def update(self, updates: int) -> None:
        """Add the parameters' present values to the average, after `updates` earlier ones."""
        decay = min(self.decay, (1 + updates) / (10 + updates)) if self.warmup else self.decay
        average, parameters = list(self.average.values()), list(self.parameters.values())
        torch._foreach_lerp_(average, parameters, 1 - decay)

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Continue from an earlier average."""
        for name, value in self.average.items():
            value.copy_(average[name])
