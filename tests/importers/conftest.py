"""Files to import, what is read of them, and how near to its oracle an output must be."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difftool.importers import find
from difftool.importers.format import Imported
from difftool.networks import build_network

ONE, RUN = 2e-4, 1e-3  # of the largest output: one evaluation, a whole run

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write content by torch.save, alone in a folder, perhaps with a configuration beside it."""

    def write(content: Any, config: str = "", name: str = "weights") -> Path:
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        torch.save(content, folder / name)
        if config:
            (folder / "config.yml").write_text(config)
        return folder / name

    return write


def words(said: Mapping[str, object]) -> dict[str, str]:
    """Return settings as the command line has them."""
    return {name: str(value) for name, value in said.items()}


def read(path: Path, **said: object) -> Imported:
    """Import from a path, with what is said of it."""
    return find(path).read(words(said))


def network_of(imported: Imported) -> nn.Module:
    """Return the imported network with its weights."""
    network = build_network(imported.network)
    network.load_state_dict(dict(imported.tensors))
    return network.eval()


@torch.no_grad()
def output_of(imported: Imported, x: Tensor, *conds: Tensor) -> Tensor:
    """Evaluate the imported network."""
    network = network_of(imported)
    return network(x, network.condition(*conds))  # type: ignore[operator]


def near(actual: Any, expected: Any, share: float = ONE) -> bool:
    """Compare arrays or tensors, by a share of the largest value that is expected."""
    assert actual.shape == expected.shape
    return bool(abs(actual - expected).max() <= share * abs(expected).max())
