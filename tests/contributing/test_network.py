"""A network is one new file, and one line with its import."""

import json
from pathlib import Path

import pytest

from tests.contributing.conftest import Project, listed

NETWORK = '''
"""An affine map of each channel, for each noise level."""

import torch
from torch import Tensor, nn

from difftool.networks.checks import check_at_least


class Mine(nn.Module):
    """x [N, in_channels, ...] -> the same shape, by a scale that depends on cond and an offset."""

    def __init__(self, *, in_channels: int, levels: int, start: float = 0.0) -> None:
        super().__init__()
        check_at_least(1, "in_channels", in_channels)
        check_at_least(1, "levels", levels)
        self.offset = nn.Parameter(torch.full((in_channels,), start))
        self.scale = nn.Linear(1, in_channels)
        self.levels = levels

    def condition(self, cond: Tensor) -> Tensor:
        """cond [R] (level indices) -> the scale of each channel [R, in_channels]."""
        return torch.exp(self.scale(cond[:, None] / self.levels))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        spread = (..., *[None] * (x.ndim - 2))
        return x * c[spread] + self.offset[spread]
'''

TEST = '''
"""The network `mine` has the parameters that its docstring says."""

from difftool.diffusion.calls import NetworkCall
from difftool.networks import build_network, num_parameters


def test_parameters() -> None:
    network = build_network(NetworkCall("mine", {"in_channels": 3, "levels": 10}))
    assert num_parameters(network) == 3 + (3 + 3)
'''

LIST = "src/difftool/networks/__init__.py"


@pytest.fixture(scope="module")
def network(project: Project) -> Project:
    project.write("src/difftool/networks/mine.py", NETWORK)
    line = "from difftool.networks.mine import Mine\n"
    project.insert(LIST, after="from difftool.networks.linear_attention_unet", lines=line)
    project.insert(LIST, after='"linear_attention_unet":', lines='    "mine": Mine,\n')
    line = '    "mine": ({"in_channels": 1, "levels": 10}, (1, 8, 8)),\n'
    project.insert("tests/networks/test_networks.py", after="SMALL: dict", lines=line)
    project.write("tests/networks/test_mine.py", TEST)
    return project


def test_the_list_names_all_files(network: Project) -> None:
    assert network.changed() == listed("A network")
    assert len(network.added(LIST)) == 2


def test_commands_find_it(network: Project, tmp_path: Path, toy_recipe: str) -> None:
    """The recipe names no channels and no levels: they follow from the data."""
    recipe = toy_recipe.replace('kind = "mlp"', 'kind = "mine"').replace(
        "hidden = 8", "start = 0.5"
    )
    (tmp_path / "recipe.toml").write_text(recipe)
    said = network.difftool(
        tmp_path,
        "train ncsn --config recipe.toml --out run",
        "export run --out bundle",
        "verify bundle run --json",
    )
    verified = json.loads(said[said.index("\n{") :])
    assert verified["passed"] is True
    config = json.loads(next((tmp_path / "run/checkpoints").glob("*/config.json")).read_text())
    assert config["network"]["kind"] == "mine"
    assert config["network"]["arguments"] == {"in_channels": 2, "levels": 5, "start": 0.5}


def test_tests_find_it(network: Project) -> None:
    every, own = "tests/networks/test_networks.py", "tests/networks/test_mine.py"
    network.test(every, own, "-k", "mine and not (traces or exports) or every_kind")
