"""Puts weights of the public formats into our networks by renaming their keys."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difftool.train.networks.ncsn import NCSN, NCSNv2
from difftool.train.networks.refinenet import ConditionalInstanceNormPlus
from difftool.train.networks.unet import UNet

Weights = dict[str, Tensor]


def recorded(folder: Path) -> dict[str, Tensor]:
    """Inputs and outputs of the original code."""
    with np.load(folder / "io.npz", allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def ncsn_v1(folder: Path) -> NCSN:
    network = NCSN(in_channels=1, levels=10, channels=8)
    source = _load(folder / "checkpoint.pth")[0]
    weights = _rename(source, lambda key: _refinenet_key(key.removeprefix("module.")))
    tables = [
        weights.pop(f"{name}.embed.weight")
        for name, module in network.named_modules()
        if isinstance(module, ConditionalInstanceNormPlus)
    ]
    network.load_state_dict(weights | {"norms.weight": torch.cat(tables, dim=1)})
    return network.eval()


def ncsn_v2(folder: Path) -> NCSNv2:
    network = NCSNv2(in_channels=3, channels=8)
    ema = _load(folder / "checkpoint.pth")[4]
    network.load_state_dict(_rename(ema, _refinenet_key))
    return network.eval()


def ddpm_pesser(folder: Path) -> UNet:
    network = UNet(
        in_channels=3, out_channels=3, channels=32, multipliers=(1, 2), blocks=1, attention=(1,)
    )
    source = _load(folder / "ema_diffusion_model-100.ckpt")
    return load_unet(network, _rename(source, _pesser_key))


def improved_diffusion(folder: Path) -> UNet:
    flags = json.loads((folder / "flags.json").read_text())
    heads = flags["num_heads"]
    network = UNet(
        in_channels=3,
        out_channels=6,
        channels=flags["num_channels"],
        multipliers=(1, 2, 2, 2),
        blocks=flags["num_res_blocks"],
        attention=(1,),
        heads=heads,
        norm_eps=1e-5,
        embedding="cos_sin",
        scale_shift=flags["use_scale_shift_norm"],
        downsample_padding="symmetric",
    )
    weights = _rename(_load(folder / "ema_0.9999_000100.pt"), _openai_key)
    for key, value in weights.items():
        if ".qkv." in key:  # theirs is (head, q|k|v, channel)
            weights[key] = value.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
    return load_unet(network, weights)


def diffusers(state: Weights, network: UNet, *, blocks: int) -> UNet:
    """The weights of a diffusers UNet2DModel with `blocks` layers per block."""
    return load_unet(network, _rename(state, lambda key: _diffusers_key(key, blocks, network)))


def load_unet(network: UNet, weights: Weights) -> UNet:
    """Fuses the blocks' time projections, and q, k and v where they are apart; then loads."""
    for kind in ("weight", "bias"):
        names = [f"{name}.projection.{kind}" for name in network.residual_blocks()]
        weights[f"projections.{kind}"] = torch.cat([weights.pop(name) for name in names])
        for query in [key for key in weights if key.endswith(f".q.{kind}")]:
            names = [query.replace(".q.", f".{part}.") for part in "qkv"]
            fused = torch.cat([weights.pop(name) for name in names])
            weights[query.replace(".q.", ".qkv.")] = fused
    own = network.state_dict()  # 1x1 convolutions are linear layers or 1-d convolutions elsewhere
    network.load_state_dict({key: value.reshape(own[key].shape) for key, value in weights.items()})
    return network.eval()


def _load(path: Path) -> Any:
    return torch.load(path, weights_only=True, map_location="cpu")


def _rename(weights: Mapping[str, Tensor], key: Callable[[str], str]) -> Weights:
    return {key(name): value for name, value in weights.items()}


def _replace(key: str, words: Mapping[str, str]) -> str:
    for theirs, ours in words.items():
        key = key.replace(theirs, ours)
    return key


def _refinenet_key(key: str) -> str:
    """ermongroup/ncsn and ncsnv2."""
    words = {
        "begin_conv": "conv_in",
        "end_conv": "conv_out",
        "normalizer": "norm_out",
        "normalize": "norm",
        "adapt_convs.0": "adapt",
        "adapt_convs.1": "adapt_below",
        "output_convs": "output",
        "msf": "fusion",
        "crp": "pooling",
    }
    key = re.sub(r"\.conv\.(weight|bias)$", r".\1", key)  # pooled convolutions are nested
    key = re.sub(r"^res(\d)", lambda m: f"stages.{int(m[1]) - 1}", key)
    key = re.sub(r"^refine(\d)", lambda m: f"refine.{int(m[1]) - 1}", key)
    key = re.sub(
        r"(\d)_(\d)_(norm|conv)", lambda m: f"{m[3]}s.{2 * int(m[1]) + int(m[2]) - 3}", key
    )
    return f"net.{_replace(key, words)}"


def _pesser_key(key: str) -> str:
    """pesser/pytorch_diffusion and ermongroup/ddim, with two levels of one block."""
    words = {
        "temb.dense.0": "embedding_mlp.0",
        "temb.dense.1": "embedding_mlp.2",
        "mid.block_1": "middle.0",
        "mid.attn_1": "middle.1",
        "mid.block_2": "middle.2",
        "down.0.downsample": "down.1.0",
        "up.1.upsample": "up.1.2",
        "nin_shortcut": "shortcut",
        "temb_proj": "projection",
        "proj_out": "out",
    }
    kinds = {"block": 0, "attn": 1}
    key = re.sub(
        r"^(down|up)\.(\d)\.(block|attn)\.(\d)",
        lambda m: (
            f"{m[1]}.{2 * (int(m[2]) if m[1] == 'down' else 1 - int(m[2])) + int(m[4])}"
            f".{kinds[m[3]]}"
        ),
        key,
    )
    return _replace(key, words)


def _openai_key(key: str) -> str:
    """openai/improved-diffusion."""
    words = {
        "time_embed": "embedding_mlp",
        "input_blocks.0.0": "conv_in",
        "middle_block": "middle",
        "output_blocks": "up",
        "in_layers.0": "norm1",
        "in_layers.2": "conv1",
        "emb_layers.1": "projection",
        "out_layers.0": "norm2",
        "out_layers.3": "conv2",
        "skip_connection": "shortcut",
        "proj_out": "out",
        ".op.": ".conv.",
    }
    key = re.sub(r"^out\.(0|2)", lambda m: {"0": "norm_out", "2": "conv_out"}[m[1]], key)
    key = re.sub(r"^input_blocks\.([1-9]\d*)", lambda m: f"down.{int(m[1]) - 1}", key)
    return _replace(key, words)


def _diffusers_key(key: str, blocks: int, network: UNet) -> str:
    words = {
        "time_embedding.linear_1": "embedding_mlp.0",
        "time_embedding.linear_2": "embedding_mlp.2",
        "class_embedding": "label_embedding",
        "mid_block.resnets.0": "middle.0",
        "mid_block.resnets.1": "middle.2",
        "mid_block.attentions.0": "middle.1",
        "conv_norm_out": "norm_out",
        "time_emb_proj": "projection",
        "conv_shortcut": "shortcut",
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "out",
    }

    def place(match: re.Match[str]) -> str:
        way, level, kind, index = match[1], int(match[2]), match[3], int(match[4])
        row = level * (blocks + 1) + (index if kind in ("resnets", "attentions") else blocks)
        column = {"resnets": 0, "attentions": 1, "downsamplers": 0}.get(kind)
        if column is None:
            column = len(network.up[row]) - 1
        return f"{way}.{row}.{column}"

    pattern = r"^(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)"
    return _replace(re.sub(pattern, place, key), words)
