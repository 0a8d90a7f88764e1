"""Networks with class labels."""

from typing import Any

import pytest
import torch
from torch import nn

from difftool.diffusion.calls import NetworkCall
from difftool.errors import UsageError
from difftool.networks import build_network, num_parameters
from difftool.networks.mlp import MLP
from tests.networks.test_networks import SMALL, small


@pytest.fixture(params=["mlp", "unet"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def build(kind: str, **arguments: Any) -> nn.Module:
    return build_network(NetworkCall(kind, SMALL[kind][0] | arguments))


@torch.no_grad()
def test_labels_are_one_table_more(kind: str) -> None:
    plain, labelled = build(kind), build(kind, classes=4, null_label=True)
    (extra,) = labelled.state_dict().keys() - plain.state_dict().keys()
    width = labelled.state_dict()[extra].shape[1]
    assert labelled.state_dict()[extra].shape[0] == 5
    assert num_parameters(labelled) - num_parameters(plain) == 5 * width
    without = build(kind, classes=4)
    assert without.state_dict()[extra].shape == (4, width)


@torch.no_grad()
def test_every_label_acts_and_only_on_its_own_row(kind: str) -> None:
    network, x, _ = small(kind, classes=3, null_label=True)
    x = x[:1].expand(8, *x.shape[1:])
    cond, label = torch.tensor([0.0, 4.0]).repeat_interleave(4), torch.arange(4).repeat(2)
    output = network(x, network.condition(cond, label))
    for i in range(8):
        one = slice(i, i + 1)
        alone = network(x[one], network.condition(cond[one], label[one]))
        assert torch.allclose(alone, output[one], rtol=0, atol=1e-5)
        for j in range(i):
            assert (output[i] - output[j]).abs().max() > 1e-3


def test_every_label_learns(kind: str) -> None:
    network, x, _ = small(kind, classes=3, null_label=True)
    c = network.condition(torch.zeros(4), torch.arange(4))
    network(x[[0, 1, 2, 0]], c).square().sum().backward()
    (table,) = (p for name, p in network.named_parameters() if "label" in name)
    assert table.grad.any(dim=1).all()


@torch.no_grad()
def test_an_mlp_takes_labels_without_levels() -> None:
    network = MLP(dimensions=2, hidden=8, classes=2)
    network.label_offsets.weight.normal_(generator=torch.Generator().manual_seed(0))
    c = network.condition(torch.zeros(2), torch.tensor([0, 1]))
    assert torch.equal(c, network.label_offsets.weight)
    first, second = network(torch.zeros(2, 2), c)
    assert not torch.equal(first, second)


def test_labels_and_classes_go_together(kind: str) -> None:
    cond, label = torch.zeros(2), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(UsageError, match="has no classes"):
        build(kind).condition(cond, label)
    with pytest.raises(UsageError, match="was given no labels"):
        build(kind, classes=2).condition(cond)
    with pytest.raises(UsageError, match="null_label is given without classes"):
        build(kind, null_label=True)
    with pytest.raises(UsageError, match="classes is -1"):
        build(kind, classes=-1)
