"""The moving average against its recurrence."""

import pytest
import torch
from torch import nn

from difftool.train.ema import Ema


@pytest.mark.parametrize("warmup", [True, False])
def test_average_follows_the_recurrence(warmup: bool) -> None:
    network = nn.Linear(3, 2)
    ema = Ema(network, decay=0.9, warmup=warmup)
    expected = {name: value.detach().double() for name, value in network.named_parameters()}
    for n in range(100):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_()
        ema.update(n)
        decay = min(0.9, (1 + n) / (10 + n)) if warmup else 0.9
        for name, parameter in network.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach().double()
    for name, value in ema.average.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_without_decay_the_average_is_the_weights() -> None:
    network = nn.Linear(3, 2)
    ema = Ema(network, decay=0.0, warmup=True)
    with torch.no_grad():
        network.weight.add_(1)
    assert not torch.equal(ema.average["weight"], network.weight)
    ema.update(0)
    assert torch.equal(ema.average["weight"], network.weight)
