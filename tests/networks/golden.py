"""Weights of the public formats in our networks."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from difftool.importers import find
from difftool.networks import build_network


def recorded(folder: Path) -> dict[str, Tensor]:
    """Inputs and outputs of the original code."""
    with np.load(folder / "io.npz", allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def imported(folder: Path) -> nn.Module:
    """The network of a golden folder, as it is imported."""
    model = find(folder).read()
    network = build_network(model.network)
    network.load_state_dict(dict(model.tensors))
    return network.eval()
