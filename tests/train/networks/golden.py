"""Loads the recorded networks of the public formats into ours, by renaming their keys."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from difftool.train.networks import build_network
from difftool.train.networks.refinenet import ConditionalInstanceNormPlus
from difftool.train.networks.unet import ResidualBlock, UNet

Weights = dict[str, Tensor]


def recorded(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "io.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True, map_location="cpu")


def ncsn_v1(folder: Path) -> nn.Module:
    network = build_network("ncsn", {"in_channels": 1, "levels": 10, "channels": 8})
    source = load(folder / "checkpoint.pth")[0]
    weights = rename(source, lambda key: refinenet_key(key.removeprefix("module.")))
    for name, module in network.named_modules():
        if isinstance(module, ConditionalInstanceNormPlus):
            columns = slice(module.offset, module.offset + 3 * module.channels)
            network.norms.weight.data[:, columns] = weights.pop(f"{name}.embed.weight")
    weights["norms.weight"] = network.norms.weight.data
    network.load_state_dict(weights)
    return network.eval()


def ncsn_v2(folder: Path) -> nn.Module:
    network = build_network("ncsnv2", {"in_channels": 3, "channels": 8})
    network.load_state_dict(rename(load(folder / "checkpoint.pth")[4], refinenet_key))
    return network.eval()


def refinenet_key(key: str) -> str:
    """A key of ermongroup/ncsn or ncsnv2, in our words."""
    key = re.sub(r"\.conv\.(weight|bias)$", r".\1", key)  # pooled convolutions are nested
    key = re.sub(r"^res(\d)", lambda m: f"stages.{int(m[1]) - 1}", key)
    key = re.sub(r"^refine(\d)", lambda m: f"refine.{int(m[1]) - 1}", key)
    key = re.sub(r"(\d)_(\d)_(norm|conv)", lambda m: f"{m[3]}s.{2 * int(m[1]) + int(m[2]) - 3}", key)
    for theirs, ours in (
        ("begin_conv", "conv_in"),
        ("end_conv", "conv_out"),
        ("normalizer", "norm_out"),
        ("normalize", "norm"),
        ("adapt_convs.0", "adapt"),
        ("adapt_convs.1", "adapt_below"),
        ("output_convs", "output"),
        ("msf", "fusion"),
        ("crp", "pooling"),
    ):
        key = key.replace(theirs, ours)
    return f"net.{key}"


def ddpm_pesser(folder: Path) -> UNet:
    network = UNet(
        in_channels=3, out_channels=3, channels=32, multipliers=(1, 2), blocks=1, attention=(1,)
    )
    return load_unet(network, rename(load(folder / "ema_diffusion_model-100.ckpt"), pesser_key))


def pesser_key(key: str) -> str:
    """A key of pesser/pytorch_diffusion with two levels, in our words."""
    key = re.sub(r"^up\.(\d)", lambda m: f"up.{1 - int(m[1])}", key)
    key = re.sub(r"^mid\.(block|attn)_(\d)", lambda m: f"middle.{m[1]}.{int(m[2]) - 1}", key)
    for theirs, ours in (
        ("temb.dense.0", "embedding_mlp.0"),
        ("temb.dense.1", "embedding_mlp.2"),
        ("block", "blocks"),
        ("attn", "attentions"),
        ("downsample", "resample"),
        ("upsample", "resample"),
        ("nin_shortcut", "shortcut"),
        ("temb_proj", "projection"),
        ("proj_out", "out"),
    ):
        key = key.replace(theirs, ours)
    return key


def improved_diffusion(folder: Path) -> UNet:
    flags = json.loads((folder / "flags.json").read_text())
    network = UNet(
        in_channels=3,
        out_channels=6,
        channels=flags["num_channels"],
        multipliers=(1, 2, 2, 2),
        blocks=flags["num_res_blocks"],
        attention=(1,),
        heads=flags["num_heads"],
        norm_eps=1e-5,
        embedding="cos_sin",
        scale_shift=flags["use_scale_shift_norm"],
        downsample_padding="symmetric",
    )
    sites = openai_sites(network)
    weights = rename(
        load(folder / "ema_0.9999_000100.pt"), lambda key: openai_key(key, sites)
    )
    for key, value in weights.items():
        if "attentions" in key and value.ndim == 3:
            weights[key] = value[..., None]  # 1-d convolutions
    for key, value in weights.items():
        if ".qkv." in key:  # theirs is (head, q|k|v, channel), ours (q|k|v, head, channel)
            parts = value.unflatten(0, (flags["num_heads"], 3, -1)).transpose(0, 1)
            weights[key] = parts.flatten(0, 2)
    return load_unet(network, weights)


def openai_sites(network: UNet) -> dict[str, str]:
    """Where each numbered block of improved-diffusion sits in ours."""
    sites: dict[str, str] = {}
    inputs: list[list[str]] = [["conv_in"]]
    for level, stage in enumerate(network.down):
        inputs += [layer_names(f"down.{level}", stage, i) for i in range(len(stage.blocks))]
        inputs += [[f"down.{level}.resample"]] * (stage.resample is not None)
    outputs: list[list[str]] = []
    for level, stage in enumerate(network.up):
        outputs += [layer_names(f"up.{level}", stage, i) for i in range(len(stage.blocks))]
        if stage.resample is not None:
            outputs[-1].append(f"up.{level}.resample")
    middle = [["middle.blocks.0"], ["middle.attentions.0"], ["middle.blocks.1"]]
    for prefix, groups in (("input_blocks", inputs), ("output_blocks", outputs)):
        for i, names in enumerate(groups):
            sites |= {f"{prefix}.{i}.{j}": name for j, name in enumerate(names)}
    return sites | {f"middle_block.{i}": name for i, [name] in enumerate(middle)}


def layer_names(prefix: str, stage: nn.Module, index: int) -> list[str]:
    attends = not isinstance(stage.attentions[index], nn.Identity)
    return [f"{prefix}.blocks.{index}"] + [f"{prefix}.attentions.{index}"] * attends


def openai_key(key: str, sites: dict[str, str]) -> str:
    site = next((site for site in sites if key.startswith(f"{site}.")), None)
    if site:
        key = key.replace(site, sites[site], 1)
    for theirs, ours in (
        ("time_embed", "embedding_mlp"),
        ("in_layers.0", "norm1"),
        ("in_layers.2", "conv1"),
        ("emb_layers.1", "projection"),
        ("out_layers.0", "norm2"),
        ("out_layers.3", "conv2"),
        ("skip_connection", "shortcut"),
        ("resample.op", "resample.conv"),
        ("proj_out", "out"),
    ):
        key = key.replace(theirs, ours)
    key = re.sub(r"^out\.0", "norm_out", key)
    return re.sub(r"^out\.2", "conv_out", key)


def load_unet(network: UNet, weights: Weights) -> UNet:
    """Fuses per-block projections and separate q, k, v, then loads."""
    blocks = [name for name, m in network.named_modules() if isinstance(m, ResidualBlock)]
    for kind in ("weight", "bias"):
        parts = [weights.pop(f"{name}.projection.{kind}") for name in blocks]
        weights[f"projections.{kind}"] = torch.cat(parts)
        for key in [key for key in weights if key.endswith(f".q.{kind}")]:
            stem = key.removesuffix(f"q.{kind}")
            parts = [weights.pop(f"{stem}{part}.{kind}") for part in "qkv"]
            weights[f"{stem}qkv.{kind}"] = torch.cat(parts)
    network.load_state_dict(weights)
    return network.eval()


def rename(weights: Weights, key: Callable[[str], str]) -> Weights:
    return {key(name): value for name, value in weights.items()}
