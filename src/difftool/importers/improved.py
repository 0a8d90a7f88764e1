"""Read openai/improved-diffusion (Nichol and Dhariwal 2021) and openai/guided-diffusion (2021)."""

import re
from dataclasses import replace
from typing import Any, Final

from torch import Tensor

from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.schedules import NoiseSchedule, cosine, linear
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, UsageError, quoted
from difftool.importers.format import Format, Imported
from difftool.importers.settings import Chosen, Setting, Settings, fixed
from difftool.importers.source import Source
from difftool.importers.tensors import Weights, as_weights, find_size, replace_words, take

IMAGE_SIZE: Final = Setting("image_size", int, usual="such as 64")
HEADS: Final = Setting(
    "num_heads", int, usual="4 in improved-diffusion and guided-diffusion at 128 pixels, else 1"
)
HEAD_CHANNELS: Final = Setting("num_head_channels", int, default=-1)
HEADS_UPSAMPLE: Final = fixed("num_heads_upsample", -1)
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

# The image sizes of the published training scripts, by the multipliers that they choose for them.
_SIZES: Final = {
    (1, 2, 2, 2): 32,
    (1, 2, 3, 4): 64,
    (1, 1, 2, 3, 4): 128,
    (1, 1, 2, 2, 4, 4): 256,
    (1, 2, 2, 4, 4, 8, 8): 512,
}
_SCALE: Final = 1000  # steps of the linear betas, and the end of rescaled timesteps
_SIGNS: Final = {
    "time_embed.0.weight",
    "input_blocks.0.0.weight",
    "input_blocks.1.0.in_layers.0.weight",
    "output_blocks.0.0.in_layers.0.weight",
    "out.2.weight",
}


def _recognizes(source: Source) -> bool:
    return as_weights(source.content).keys() >= _SIGNS


def _read(source: Source, settings: Settings) -> Imported:
    state = as_weights(source.content)
    arguments = _network_arguments(state)
    chosen = _choose(settings, arguments)
    if chosen[HEAD_CHANNELS] != -1:
        arguments["head_channels"] = chosen[HEAD_CHANNELS]
    else:
        arguments["heads"] = chosen[HEADS]
    network = NetworkCall("unet", arguments)
    tensors = take(state, network, _source_name)
    if not chosen[NEW_ORDER]:
        tensors = _stacked(tensors, arguments.get("heads"), arguments.get("head_channels"))
    in_channels, size = arguments["in_channels"], chosen[IMAGE_SIZE]
    learned = arguments["out_channels"] == 2 * in_channels
    steps = chosen[STEPS]
    return Imported(
        spec=ModelSpec(
            shape=(in_channels, size, size),
            schedule=_schedule(chosen),
            parameterization="x0" if chosen[PREDICT_X0] else "epsilon",
            cond="timestep",
            timestep_scale=_SCALE / steps if chosen[RESCALE] else 1.0,
            data_range=(-1.0, 1.0),
            learned_variance=learned,
            classes=arguments["classes"],
        ),
        network=network,
        tensors=tensors,
        sampler=_sampler(chosen, learned),
        weights="raw",
        chosen=chosen,
        files=source.files,
        notes=("a bare state dict: only its name tells whether it is a moving average",),
    )


def _network_arguments(state: Weights) -> dict[str, Any]:
    """Return the constructor arguments of these tensors' U-Net, except for attention heads."""
    levels, blocks = _levels_and_blocks(state)
    channels = find_size(state, "input_blocks.0.0.weight")
    # The numbers of each level's residual blocks; the row after them is the downsampling.
    rows = [range(1 + level * (blocks + 1), (level + 1) * (blocks + 1)) for level in range(levels)]
    parts = ("out_layers.0.weight", "out_layers.0.bias", "out_layers.3.bias", "in_layers.2.bias")
    widths = [
        find_size(state, *(f"input_blocks.{i}.0.{part}" for i in level for part in parts))
        for level in rows
    ]
    projection = "input_blocks.1.0.emb_layers.1"
    projected = find_size(state, f"{projection}.bias", f"{projection}.weight")
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
        "embedding_channels": find_size(state, "time_embed.0.weight", axis=1),
        "scale_shift": projected == 2 * widths[0],
        "resample": "block"
        if f"input_blocks.{blocks + 1}.0.in_layers.0.weight" in state
        else "conv",
        "downsample_padding": "symmetric",
        "classes": find_size(state, "label_emb.weight") if "label_emb.weight" in state else 0,
    }


def _stacked(tensors: Weights, heads: int | None, head_channels: int | None) -> Weights:
    """Reorder attention from q, k, v of each head to all heads' q, then all k, then all v."""

    def stack(value: Tensor) -> Tensor:
        count = heads or len(value) // (3 * (head_channels or 1))
        return value.unflatten(0, (count, 3, -1)).transpose(0, 1).flatten(0, 2)

    return {name: stack(t) if ".qkv." in name else t for name, t in tensors.items()}


def _source_name(name: str) -> str:
    """Return the format's name of a tensor of our U-Net."""
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
    """Choose the settings; the network and the number of steps decide which have defaults."""
    size, heads, order, rescale = IMAGE_SIZE, HEADS, NEW_ORDER, RESCALE
    if known := _SIZES.get(tuple(arguments["multipliers"])):
        size = replace(size, default=known)
    if settings.peek(HEAD_CHANNELS) != -1:
        heads = replace(heads, default=-1)  # it has no effect then
    several = settings.peek(heads) != 1
    if several and arguments["resample"] == "block":  # guided-diffusion uses both orders
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
    """Return the number of resolutions, and of residual blocks of each on the way down."""
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
            "check that the file is whole",
        )
    return levels, each - 1


def _ends(state: Weights) -> tuple[int, int]:
    """Return the channels that the network takes and gives."""
    takes = find_size(state, "input_blocks.0.0.weight", axis=1)
    gives = find_size(state, "out.2.bias", "out.2.weight")
    if gives not in (takes, 2 * takes) or takes == 6:
        raise ArtefactError(
            f"this network takes {takes} channels and gives {gives}: it enlarges pictures",
            "import one that makes them from noise alone",
        )
    return takes, gives


def _schedule(chosen: Chosen) -> NoiseSchedule:
    steps = chosen[STEPS]
    if chosen[SCHEDULE] == "cosine":
        return cosine(steps=steps)
    scale = _SCALE / steps
    return linear(steps=steps, beta_start=scale * 1e-4, beta_end=scale * 0.02)


def _sampler(chosen: Chosen, learned: bool) -> SamplerCall:
    """Return the published sampler: DDPM on all or some steps, or "ddim" and a number of steps."""
    text = chosen[RESPACING]
    found = re.fullmatch(r"(ddim)?(\d{1,9})", text)
    if text and found is None:
        raise UsageError(
            f"{RESPACING.name} is {quoted(text)}, for which difftool has no sampler",
            "give a number of steps, ddim and a number, or nothing",
        )
    if found and found[1]:
        return SamplerCall("ddim", {"steps": int(found[2]), "spacing": "leading"})
    variance = "learned" if learned else "small" if chosen[SIGMA_SMALL] else "large"
    steps = {"steps": int(found[2])} if found else {}
    return SamplerCall("ddpm", {**steps, "variance": variance})


FORMAT: Final = Format(
    title="openai/improved-diffusion or openai/guided-diffusion",
    sign="tensors named time_embed, input_blocks and output_blocks",
    recognizes=_recognizes,
    read=_read,
)
