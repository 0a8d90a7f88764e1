"""A U-Net of ours as one of diffusers', with the same weights, and its pipeline."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from common.candidates import Runner, Unavailable
from common.inside_torch import UNet, namer
from common.models import Setting
from difftool.runtime import Reference
from difftool.train import Checkpoint


def pipeline_runner(setting: Setting, dtype: torch.dtype = torch.float32) -> Runner:
    """Open diffusers' DDPMPipeline, called as its page says."""
    pipe = pipeline(setting.checkpoint)
    pipe.to(setting.device)
    pipe.unet.to(dtype)

    def steps(count: int) -> None:
        pipe(batch_size=setting.size, num_inference_steps=count, output_type="np")

    def network(x: np.ndarray, cond: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            inputs = (torch.from_numpy(a).to(setting.device, dtype) for a in (x, cond))
            return pipe.unet(*inputs).sample.double().cpu().numpy()

    batch = Reference(network, setting.spec.shape).batch(setting.program, setting.size)
    return Runner(batch, steps, most=len(setting.program), burst=0)


def pipeline(source: Checkpoint) -> Any:
    """Make the DDPMPipeline of a checkpoint.

    Its timesteps are those of the linear schedule that both have.

    Raises:
        Unavailable: diffusers is not installed, or has no such network or sampler.
    """
    try:
        from diffusers import DDPMPipeline, DDPMScheduler
    except ImportError as error:
        raise Unavailable("diffusers is not installed") from error

    spec = source.spec
    schedule = spec.schedule.to_dict()
    if spec.parameterization != "epsilon" or schedule["kind"] != "linear":
        raise Unavailable("DDPMPipeline runs DDPMs with a linear schedule")
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
    """Make UNet2DModel with the weights of a checkpoint; Unavailable if it has no such network."""
    from diffusers import UNet2DModel

    ours, size = source.network, source.spec.shape[-1]
    arguments = source.config["network"]["arguments"]
    if not isinstance(ours, UNet) or not _theirs(arguments):
        raise Unavailable("UNet2DModel has no such network")
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
    places = theirs.state_dict()  # of linear layers, for our 1x1 convolutions
    state = _state(ours, namer(theirs.config.layers_per_block))
    theirs.load_state_dict({n: value.reshape(places[n].shape) for n, value in state.items()})
    return theirs.eval().requires_grad_(False)


def _theirs(arguments: dict[str, Any]) -> bool:
    """Tell if they have a U-Net of such arguments."""
    return (
        arguments.get("heads", 1) == 1
        and arguments.get("resample", "conv") == "conv"
        and not arguments.get("classes")
        and arguments.keys().isdisjoint(("up_attention", "middle_groups", "frequency_shift"))
    )


def _state(ours: UNet, name: Callable[[str], str]) -> dict[str, torch.Tensor]:
    """Name our weights as theirs, by the importer's names, and split those of fused layers."""
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
