"""A U-Net of ours as one of diffusers', with the same weights, and its pipeline."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from difftool.train.checkpoint import Checkpoint
from difftool.train.networks.unet import UNet
from difftool.train.networks.unet_layers import ResidualBlock, SelfAttention


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
        resnet_time_scale_shift="scale_shift" if arguments.get("scale_shift") else "default",
    )
    with torch.no_grad():
        for target, value in _weights(theirs, ours):
            target.copy_(value.reshape(target.shape))
    return theirs.eval().requires_grad_(False)


def _theirs(arguments: dict[str, Any]) -> bool:
    """Whether they have a U-Net of such arguments."""
    return (
        arguments.get("heads", 1) == 1
        and arguments.get("resample", "conv") == "conv"
        and not arguments.get("classes")
    )


def _weights(theirs: Any, ours: UNet) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each of their weights, and what belongs there."""
    yield from _same(theirs.time_embedding.linear_1, ours.embedding_mlp[0])
    yield from _same(theirs.time_embedding.linear_2, ours.embedding_mlp[2])
    yield from _same(theirs.conv_in, ours.conv_in)
    yield from _same(theirs.conv_norm_out, ours.norm_out)
    yield from _same(theirs.conv_out, ours.conv_out)
    residual = []  # theirs, in our running order
    rows = iter(ours.down)
    for block in theirs.down_blocks:
        for resnet, attention in zip(block.resnets, _attentions(block), strict=True):
            yield from _row(next(rows), resnet, attention)
            residual.append(resnet)
        for sampler in block.downsamplers or ():
            yield from _same(sampler.conv, next(rows)[0].conv)
    first, second = theirs.mid_block.resnets
    yield from _row(ours.middle[:2], first, theirs.mid_block.attentions[0])
    yield from _row(ours.middle[2:], second, None)
    residual += [first, second]
    rows = iter(ours.up)
    for block in theirs.up_blocks:
        for resnet, attention in zip(block.resnets, _attentions(block), strict=True):
            row = next(rows)
            yield from _row(row, resnet, attention)
            residual.append(resnet)
        for sampler in block.upsamplers or ():
            yield from _same(sampler.conv, row[-1].conv)
    for kind in ("weight", "bias"):
        parts = getattr(ours.projections, kind).split(ours.projection_sizes)
        for resnet, part in zip(residual, parts, strict=True):
            yield getattr(resnet.time_emb_proj, kind), part


def _attentions(block: Any) -> list[Any]:
    """The block's attentions, or as many times none."""
    return list(getattr(block, "attentions", None) or [None] * len(block.resnets))


def _row(row: Any, resnet: Any, attention: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """A residual block of ours and perhaps an attention."""
    block: ResidualBlock = row[0]
    for name in ("norm1", "conv1", "norm2", "conv2"):
        yield from _same(getattr(resnet, name), getattr(block, name))
    if resnet.conv_shortcut is not None:
        yield from _same(resnet.conv_shortcut, block.shortcut)
    if attention is not None:
        own: SelfAttention = row[1]
        yield from _same(attention.group_norm, own.norm)
        yield from _same(attention.to_out[0], own.out)
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", getattr(own.qkv, kind).chunk(3), strict=True):
                yield getattr(getattr(attention, f"to_{name}"), kind), part


def _same(theirs: Any, ours: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    yield theirs.weight, ours.weight
    yield theirs.bias, ours.bias
