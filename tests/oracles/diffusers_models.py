"""Models of diffusers with weights that are not zero, as the library saves them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

# google/ddpm-cifar10-32 and google/ddpm-celebahq-256, narrower; the second smaller, too.
CIFAR: dict[str, Any] = {
    "sample_size": 32,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "freq_shift": 1,
    "flip_sin_to_cos": False,
    "block_out_channels": [32, 64, 64, 64],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 0,
    "act_fn": "silu",
    "attention_head_dim": None,
    "norm_num_groups": 32,
    "norm_eps": 1e-6,
}
CELEBA: dict[str, Any] = CIFAR | {
    "sample_size": 64,
    "block_out_channels": [32, 32, 64, 64, 96, 96],
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
}
SMALL: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": [16, 32],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 8,
}


def unet(config: dict[str, Any]) -> Any:
    """Return the library's network, with biases and norms that are not as they start."""
    torch.manual_seed(0)
    network = pytest.importorskip("diffusers").UNet2DModel(**config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    return network


def save(
    folder: Path, config: dict[str, Any], scheduler: dict[str, Any] | None = None, **options: Any
) -> Path:
    """Save a network and its scheduler, DDPMScheduler by default, in one folder."""
    unet(config).save_pretrained(folder, **options)
    rules = {"_class_name": "DDPMScheduler", **(scheduler or {})}
    (folder / "scheduler_config.json").write_text(json.dumps(rules))
    return folder


def give_noise(monkeypatch: pytest.MonkeyPatch, noise: Iterator[Tensor]) -> None:
    """Let the library's pipelines and schedulers take their noise from here, in order."""

    def draw(*_: object, **__: object) -> Tensor:
        return next(noise).clone()

    for module in (
        *(f"pipelines.{kind}.pipeline_{kind}" for kind in ("ddpm", "ddim")),
        "pipelines.deprecated.score_sde_ve.pipeline_score_sde_ve",
        *(f"schedulers.scheduling_{kind}" for kind in ("ddpm", "ddim", "sde_ve")),
    ):
        monkeypatch.setattr(f"diffusers.{module}.randn_tensor", draw)
