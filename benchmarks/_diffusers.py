"""A U-Net of ours as one of diffusers', with the same weights, and its pipeline."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from difftool.networks.trained import Checkpoint
from difftool.networks.unet import UNet
from difftool.train.importers.diffusers_unet import namer


class NotTheirs(Exception):
    """diffusers has no such network or sampler."""


def pipeline(source: Checkpoint) -> Any:
    """DDPMPipeline of a checkpoint; NotTheirs where it is no DDPM with a U-Net that they have.

    Its timesteps are those of the linear schedule that both have.
    """
    from diffusers import DDPMPipeline, DDPMScheduler

    spec = source.spec
    schedule = spec.schedule.to_dict()
    if spec.parameterization != "epsilon" or schedule["kind"] != "linear":
        raise NotTheirs("DDPMPipeline runs DDPMs with a linear schedule")
    scheduler = DDPMScheduler(
        num_train_timesteps=len(spec.schedule),
        beta_start=schedule["beta_start"],
        beta_end=schedule["beta_end"],
        variance_type="fixed_large",
    )
    result = DDPMPipeline(unet=unet(source), scheduler=scheduler)
    result.set_progress_bar_config(disable=True)
    return result


def unet(source: Checkpoint) -> nn.Module:
    """UNet2DModel with the weights of a checkpoint; NotTheirs where it has no such network."""
    from diffusers import UNet2DModel

    ours, size = source.network, source.spec.shape[-1]
    arguments = source.config["network"]["arguments"]
    if not isinstance(ours, UNet) or not _theirs(arguments):
        raise NotTheirs("UNet2DModel has no such network")
    multipliers = arguments.get("multipliers", [1, 2, 2, 2])
    attention = arguments.get("attention", [1])
    levels = range(len(multipliers))
    cos_sin = arguments.get("embedding", "sin_cos") == "cos_sin"
    theirs = UNet2DModel(
        sample_size=size,
        in_channels=arguments["in_channels"],
        out_channels=arguments["out_channels"],
        block_out_channels=[arguments.get("channels", 128) * m for m in multipliers],
        layers_per_block=arguments.get("blocks", 2),
        down_block_types=[f"{'Attn' * (i in attention)}DownBlock2D" for i in levels],
        up_block_types=[f"{'Attn' * (i in attention)}UpBlock2D" for i in reversed(levels)],
        attention_head_dim=arguments.get("head_channels"),
        downsample_padding=int(arguments.get("downsample_padding") == "symmetric"),
        flip_sin_to_cos=cos_sin,
        freq_shift=int(not cos_sin),
        norm_eps=arguments.get("norm_eps", 1e-6),
        norm_num_groups=arguments.get("groups", 32),
        attn_norm_num_groups=arguments.get("groups", 32),
        resnet_time_scale_shift="scale_shift" if arguments.get("scale_shift") else "default",
    )
    places = theirs.state_dict()  # theirs has linear layers where ours has 1x1 convolutions
    state = _state(ours, namer(theirs.config.layers_per_block))
    theirs.load_state_dict({n: value.reshape(places[n].shape) for n, value in state.items()})
    return theirs.eval().requires_grad_(False)


def _theirs(arguments: dict[str, Any]) -> bool:
    """Whether they have a U-Net of such arguments."""
    return (
        arguments.get("heads", 1) == 1
        and arguments.get("resample", "conv") == "conv"
        and not arguments.get("classes")
        and arguments.keys().isdisjoint(("up_attention", "middle_groups", "frequency_shift"))
    )


def _state(ours: UNet, name: Callable[[str], str]) -> dict[str, torch.Tensor]:
    """Our weights by their names, as the importer has them, and each of a fused layer apart."""
    state = {}
    for kind in ("weight", "bias"):
        parts = getattr(ours.projections, kind).split(ours.projection_sizes)
        for block, part in zip(ours.residual_blocks(), parts, strict=True):
            state[name(f"{block}.projection.{kind}")] = part
    for key, value in ours.state_dict().items():
        if ".qkv." in key:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                state[name(key.replace(".qkv.", f".{letter}."))] = part
        elif not key.startswith("projections."):
            state[name(key)] = value
    return state
