"""openai/improved-diffusion (Nichol and Dhariwal 2021) and openai/guided-diffusion (2021)."""

import re
from dataclasses import replace
from typing import Any, Final

from torch import Tensor

from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.schedules import NoiseSchedule, cosine, linear
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, UsageError, quoted
from difftool.importers.format import Format, Imported
from difftool.importers.settings import Chosen, Setting, Settings
from difftool.importers.source import Source
from difftool.importers.tensors import (
    Weights,
    outline,
    replace_words,
    size_of,
    take_unet,
    weights_of,
)
from difftool.networks.unet import UNet

IMAGE_SIZE: Final = Setting("image_size", int, usual="such as 64")
HEADS: Final = Setting(
    "num_heads", int, usual="4 in improved-diffusion and guided-diffusion at 128 pixels, else 1"
)
HEAD_CHANNELS: Final = Setting("num_head_channels", int, default=-1)
HEADS_UPSAMPLE: Final = Setting("num_heads_upsample", int, default=-1, choices=(-1,))
NEW_ORDER: Final = Setting("use_new_attention_order", bool, default=False)
STEPS: Final = Setting(
    "diffusion_steps", int, usual="4000 in improved-diffusion, 1000 in guided-diffusion"
)
SCHEDULE: Final = Setting(
    "noise_schedule",
    str,
    usual="cosine for improved-diffusion's CIFAR-10 and ImageNet, linear for most others",
    choices=("linear", "cosine"),
)
RESCALE: Final = Setting("rescale_timesteps", bool, default=False)
RESPACING: Final = Setting("timestep_respacing", str, default="")
SIGMA_SMALL: Final = Setting("sigma_small", bool, default=False)
PREDICT_X0: Final = Setting("predict_xstart", bool, default=False)

# What the published training scripts make of an image size, with conv_in's width as the unit.
_SIZES: Final = {
    (1, 2, 2, 2): 32,
    (1, 2, 3, 4): 64,
    (1, 1, 2, 3, 4): 128,
    (1, 1, 2, 2, 4, 4): 256,
    (1, 2, 2, 4, 4, 8, 8): 512,
}
_SCALE: Final = 1000  # what timesteps are rescaled to, and the steps that the linear betas are for
_SIGNS: Final = {
    "time_embed.0.weight",
    "input_blocks.0.0.weight",
    "input_blocks.1.0.in_layers.0.weight",
    "output_blocks.0.0.in_layers.0.weight",
    "out.2.weight",
}


def _recognizes(source: Source) -> bool:
    state = weights_of(source.content)
    return state is not None and state.keys() >= _SIGNS


def _read(source: Source, settings: Settings) -> Imported:
    state = weights_of(source.content) or {}
    arguments = arguments_of(state)
    chosen = _choose(settings, arguments)
    if chosen[HEAD_CHANNELS.name] != -1:
        arguments["head_channels"] = chosen[HEAD_CHANNELS.name]
    else:
        arguments["heads"] = chosen[HEADS.name]
    network = outline(NetworkCall("unet", arguments))
    assert isinstance(network, UNet)
    tensors = take_unet(state, network, source_name, apart=False)
    if not chosen[NEW_ORDER.name]:
        tensors = stacked(tensors, arguments.get("heads"), arguments.get("head_channels"))
    in_channels, size = arguments["in_channels"], chosen[IMAGE_SIZE.name]
    learned = arguments["out_channels"] == 2 * in_channels
    steps = chosen[STEPS.name]
    return Imported(
        spec=ModelSpec(
            shape=(in_channels, size, size),
            schedule=_schedule(chosen),
            parameterization="x0" if chosen[PREDICT_X0.name] else "epsilon",
            cond="timestep",
            timestep_scale=_SCALE / steps if chosen[RESCALE.name] else 1.0,
            data_range=(-1.0, 1.0),
            learned_variance=learned,
            classes=arguments["classes"],
        ),
        network=NetworkCall("unet", arguments),
        tensors=tensors,
        sampler=_sampler(chosen, learned),
        weights="raw",
        chosen=chosen,
        files=source.files,
        notes=("a bare state dict: whether it is a moving average, only its name says",),
    )


def arguments_of(state: Weights) -> dict[str, Any]:
    """The constructor arguments of the U-Net that these tensors are of, but for attention heads."""
    levels, blocks = _levels_and_blocks(state)
    channels = size_of(state, "input_blocks.0.0.weight")
    rows = [  # of each level: the numbers of its residual blocks
        range(1 + level * (blocks + 1), (level + 1) * (blocks + 1)) for level in range(levels)
    ]
    parts = ("out_layers.0.weight", "out_layers.0.bias", "out_layers.3.bias", "in_layers.2.bias")
    widths = [
        size_of(state, *(f"input_blocks.{i}.0.{part}" for i in level for part in parts))
        for level in rows
    ]
    projection = "input_blocks.1.0.emb_layers.1"
    projected = size_of(state, f"{projection}.bias", f"{projection}.weight")
    in_channels, out_channels = _ends(state)
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "channels": channels,
        "multipliers": [width // channels for width in widths],
        "blocks": blocks,
        "attention": [
            number
            for number, level in enumerate(rows)
            if any(f"input_blocks.{i}.1.qkv.weight" in state for i in level)
        ],
        "norm_eps": 1e-5,
        "embedding": "cos_sin",
        "embedding_channels": size_of(state, "time_embed.0.weight", axis=1),
        "scale_shift": projected == 2 * widths[0],
        "resample": "block"
        if f"input_blocks.{blocks + 1}.0.in_layers.0.weight" in state
        else "conv",
        "downsample_padding": "symmetric",
        "classes": size_of(state, "label_emb.weight") if "label_emb.weight" in state else 0,
    }


def stacked(tensors: Weights, heads: int | None, head_channels: int | None) -> Weights:
    """The same with q, k and v of all heads one after another, instead of head after head."""

    def stack(value: Tensor) -> Tensor:
        count = heads or len(value) // (3 * (head_channels or 1))
        return value.unflatten(0, (count, 3, -1)).transpose(0, 1).flatten(0, 2)

    return {name: stack(t) if ".qkv." in name else t for name, t in tensors.items()}


def source_name(name: str) -> str:
    """What the format calls a part of our U-Net."""
    words = {
        "embedding_mlp": "time_embed",
        "label_embedding": "label_emb",
        "conv_in": "input_blocks.0.0",
        "middle": "middle_block",
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "projection": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "shortcut": "skip_connection",
        ".out.": ".proj_out.",
        "norm_out": "out.0",
        "conv_out": "out.2",
    }
    name = re.sub(r"^(down\..*)\.conv\.", r"\1.op.", name)
    name = re.sub(r"^down\.(\d+)", lambda m: f"input_blocks.{int(m[1]) + 1}", name)
    return replace_words(re.sub(r"^up\.", "output_blocks.", name), words)


def _choose(settings: Settings, arguments: dict[str, Any]) -> Chosen:
    """The settings; what must be said depends on the network and on the steps."""
    size, heads, order, rescale = IMAGE_SIZE, HEADS, NEW_ORDER, RESCALE
    if known := _SIZES.get(tuple(arguments["multipliers"])):
        size = replace(size, default=known)
    if settings.peek(HEAD_CHANNELS) != -1:
        heads = replace(heads, default=-1)  # not looked at
    several = settings.peek(heads) != 1
    if several and arguments["resample"] == "block":  # guided-diffusion, which has both orders
        order = replace(order, default=None, usual="true for 64x64_diffusion.pt, else false")
    if settings.peek(STEPS) != _SCALE:
        usual = "if diffusion_steps is not 1000; true by default in improved-diffusion"
        rescale = replace(rescale, default=None, usual=usual)
    return settings.choose(
        size,
        heads,
        HEAD_CHANNELS,
        HEADS_UPSAMPLE,
        order,
        STEPS,
        SCHEDULE,
        rescale,
        RESPACING,
        SIGMA_SMALL,
        PREDICT_X0,
    )


def _levels_and_blocks(state: Weights) -> tuple[int, int]:
    """How many resolutions there are, and residual blocks of each on the way down."""
    rows = {m[1] for name in state if (m := re.match(r"output_blocks\.(\d+)\.", name))}
    upsampled = {
        m[1]
        for name in state
        if (m := re.match(r"output_blocks\.(\d+)\.[12]\.(conv|in_layers)\.", name))
    }
    levels = len(upsampled) + 1
    each, rest = divmod(len(rows), levels)  # a level has one more row on the way up
    if rest or each < 2:
        raise ArtefactError(
            f"{len(rows)} output_blocks do not divide among {levels} resolutions",
            "is the file whole?",
        )
    return levels, each - 1


def _ends(state: Weights) -> tuple[int, int]:
    """The channels that the network takes and gives."""
    takes = size_of(state, "input_blocks.0.0.weight", axis=1)
    gives = size_of(state, "out.2.bias", "out.2.weight")
    if gives not in (takes, 2 * takes) or takes == 6:
        raise ArtefactError(
            f"this network takes {takes} channels and gives {gives}: it enlarges pictures",
            "import one that makes them from noise alone",
        )
    return takes, gives


def _schedule(chosen: Chosen) -> NoiseSchedule:
    steps = chosen[STEPS.name]
    if chosen[SCHEDULE.name] == "cosine":
        return cosine(steps=steps)
    scale = _SCALE / steps
    return linear(steps=steps, beta_start=scale * 1e-4, beta_end=scale * 0.02)


def _sampler(chosen: Chosen, learned: bool) -> SamplerCall:
    """The published sampler: all steps, so many, or "ddim" and so many."""
    text = chosen[RESPACING.name]
    found = re.fullmatch(r"(ddim)?(\d+)", text)
    if text and found is None:
        raise UsageError(
            f"{RESPACING.name} is {quoted(text)}, which difftool has no sampler for",
            "say a number of steps, ddim and a number, or nothing",
        )
    if found and found[1]:
        return SamplerCall("ddim", {"steps": int(found[2]), "spacing": "leading"})
    variance = "learned" if learned else "small" if chosen[SIGMA_SMALL.name] else "large"
    steps = {"steps": int(found[2])} if found else {}
    return SamplerCall("ddpm", {**steps, "variance": variance})


FORMAT: Final = Format(
    title="openai/improved-diffusion or openai/guided-diffusion",
    sign="tensors named time_embed, input_blocks and output_blocks",
    recognizes=_recognizes,
    read=_read,
)
