"""Weights of the public formats in our networks."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from difftool.train.importers import find
from difftool.train.importers.tensors import Weights, replace_words, take_unet
from difftool.train.networks import build_network
from difftool.train.networks.unet import UNet


def recorded(folder: Path) -> dict[str, Tensor]:
    """Inputs and outputs of the original code."""
    with np.load(folder / "io.npz", allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def imported(folder: Path) -> nn.Module:
    """The network of a golden folder, as it is imported."""
    model = find(folder).read()
    network = build_network(model.network["kind"], model.network["arguments"])
    network.load_state_dict(dict(model.tensors))
    return network.eval()


def diffusers(state: Weights, network: UNet, *, blocks: int) -> UNet:
    """The weights of a diffusers UNet2DModel with `blocks` layers per block."""
    tensors = take_unet(state, network, partial(_diffusers_name, blocks=blocks), apart=True)
    network.load_state_dict(tensors)
    return network.eval()


def _diffusers_name(name: str, blocks: int) -> str:
    words = {
        "embedding_mlp.0": "time_embedding.linear_1",
        "embedding_mlp.2": "time_embedding.linear_2",
        "label_embedding": "class_embedding",
        "middle.0": "mid_block.resnets.0",
        "middle.2": "mid_block.resnets.1",
        "middle.1": "mid_block.attentions.0",
        "norm_out": "conv_norm_out",
        "projection": "time_emb_proj",
        "shortcut": "conv_shortcut",
        ".norm.": ".group_norm.",
        ".q.": ".to_q.",
        ".k.": ".to_k.",
        ".v.": ".to_v.",
        ".out.": ".to_out.0.",
    }

    def place(match: re.Match[str]) -> str:
        way, row, column, part = match[1], int(match[2]), int(match[3]), match[4]
        level, index = divmod(row, blocks + 1)
        kind = "attentions" if part in ("norm", "q", "k", "v", "out") else "resnets"
        last = (way == "down" and index == blocks) or (way == "up" and column > 0)
        if part == "conv" or (kind == "resnets" and last):
            kind, index = f"{way}samplers", 0
        return f"{way}_blocks.{level}.{kind}.{index}.{part}."

    name = re.sub(r"^(down|up)\.(\d+)\.(\d)\.(\w+)\.", place, name)
    return replace_words(name, words)
