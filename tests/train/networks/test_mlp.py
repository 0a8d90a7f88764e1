"""The MLP for points in any number of dimensions."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from difftool.train.networks.mlp import MLP


@pytest.mark.parametrize("dimensions", [1, 2, 7])
@torch.no_grad()
def test_without_levels_is_the_plain_network(dimensions: int) -> None:
    torch.manual_seed(0)
    network = MLP(dimensions=dimensions)
    first, second, third = (m for m in network.modules() if isinstance(m, nn.Linear))
    x = torch.randn(4, dimensions)
    expected = third(F.softplus(second(F.softplus(first(x)))))
    assert torch.equal(network(x, network.condition(torch.zeros(4))), expected)


@torch.no_grad()
def test_with_levels_starts_as_the_plain_network() -> None:
    torch.manual_seed(0)
    plain = MLP(dimensions=2)
    levelled = MLP(dimensions=2, levels=5)
    levelled.load_state_dict(plain.state_dict(), strict=False)
    x, cond = torch.randn(3, 2), torch.tensor([0.0, 2.0, 4.0])
    actual = levelled(x, levelled.condition(cond))
    assert torch.equal(actual, plain(x, plain.condition(cond)))
