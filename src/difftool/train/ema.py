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
        self.decay = decay
        self.warmup = warmup
        # Detached tensors share memory with the parameters, so they follow every step.
        self.parameters = {name: value.detach() for name, value in network.named_parameters()}
        self.average = {name: value.clone() for name, value in self.parameters.items()}

    def decay_at(self, updates: int) -> float:
        """Return d for the update after `updates` earlier ones."""
        return min(self.decay, (1 + updates) / (10 + updates)) if self.warmup else self.decay

    def update(self, updates: int) -> None:
        """Add the parameters' present values to the average."""
        torch._foreach_lerp_(
            list(self.average.values()), list(self.parameters.values()), 1 - self.decay_at(updates)
        )

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Continue from an earlier average."""
        for name, value in self.average.items():
            value.copy_(average[name])
