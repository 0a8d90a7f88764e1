"""The MLP for points in any number of dimensions."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from difftool.networks.mlp import MLP
from difftool.networks.trained import load_checkpoint


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


@torch.no_grad()
def test_between_two_levels_the_offsets_are_interpolated() -> None:
    network = MLP(dimensions=2, hidden=8, levels=5)
    table = network.offsets.weight.normal_(generator=torch.Generator().manual_seed(0))
    assert torch.equal(network.condition(torch.arange(5.0)), table)
    between = network.condition(torch.tensor([0.5, 1.25, 3.9]))
    expected = [
        (table[0] + table[1]) / 2,
        0.75 * table[1] + 0.25 * table[2],
        0.1 * table[3] + 0.9 * table[4],
    ]
    torch.testing.assert_close(between, torch.stack(expected), rtol=0, atol=1e-6)


@torch.no_grad()
def test_exported_offsets_interpolate_too(points_checkpoint: Path, points_bundle: Path) -> None:
    conds = np.array([0, 0.5, 1, 2.75, 3.999, 4], np.float32)
    session = onnxruntime.InferenceSession(str(points_bundle / "conditioner.onnx"))
    (found,) = session.run(None, {"cond": conds})
    table = load_checkpoint(points_checkpoint).network.offsets.weight.numpy()
    assert np.array_equal(found[[0, 2, 5]], table[[0, 1, 4]])
    columns = [np.interp(conds, np.arange(5), column) for column in table.T]
    assert np.abs(found - np.stack(columns, axis=1)).max() < 1e-6
