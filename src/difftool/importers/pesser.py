"""Read pesser/pytorch_diffusion and ermongroup/ddim: DDPM's networks (Ho et al. 2020)."""

import re
from functools import partial
from typing import Any, Final

from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.schedules import linear, scaled_linear
from difftool.diffusion.spec import ModelSpec
from difftool.importers.format import Format, Imported
from difftool.importers.settings import Setting, Settings, fixed
from difftool.importers.source import Source
from difftool.importers.tensors import (
    Weights,
    as_weights,
    find_size,
    listed_step,
    replace_words,
    take,
)

RESOLUTION: Final = Setting(
    "resolution", int, usual="32 for CIFAR-10, 256 for LSUN", also=("data.image_size",)
)
VARIANCE: Final = Setting(
    "var_type", str, "fixedlarge", choices=("fixedlarge", "fixedsmall"), also=("model.var_type",)
)
SCHEDULE: Final = Setting(
    "beta_schedule", str, "linear", choices=("linear", "quad"), also=("diffusion.beta_schedule",)
)
BETA_START: Final = Setting("beta_start", float, default=1e-4, also=("diffusion.beta_start",))
BETA_END: Final = Setting("beta_end", float, default=0.02, also=("diffusion.beta_end",))
STEPS: Final = Setting(
    "num_diffusion_timesteps", int, default=1000, also=("diffusion.num_diffusion_timesteps",)
)
RESCALED: Final = fixed("rescaled", True, "data.rescaled")

_EMA: Final = 4  # its place in the list that ermongroup/ddim saves
_SIGNS: Final = {"temb.dense.0.weight", "conv_in.weight", "down.0.block.0.norm1.weight"}


def _state(source: Source) -> tuple[Weights, str]:
    """Return the weights to take, and their kind, "ema" or "raw"."""
    ema = as_weights(source.item(_EMA))
    return (ema, "ema") if ema else (as_weights(source.first), "raw")


def _recognizes(source: Source) -> bool:
    return _state(source)[0].keys() >= _SIGNS


def _read(source: Source, settings: Settings) -> Imported:
    chosen = settings.choose(RESOLUTION, VARIANCE, SCHEDULE, BETA_START, BETA_END, STEPS, RESCALED)
    state, weights = _state(source)
    arguments = _network_arguments(state)
    network = NetworkCall("unet", arguments)
    name = partial(_name, levels=len(arguments["multipliers"]), blocks=arguments["blocks"])
    schedule = linear if chosen[SCHEDULE] == "linear" else scaled_linear
    size = chosen[RESOLUTION]
    return Imported(
        spec=ModelSpec(
            shape=(arguments["in_channels"], size, size),
            schedule=schedule(
                steps=chosen[STEPS], beta_start=chosen[BETA_START], beta_end=chosen[BETA_END]
            ),
            parameterization="epsilon",
            cond="timestep",
            data_range=(-1.0, 1.0),
        ),
        network=network,
        tensors=take(state, network, name, apart=True),
        sampler=SamplerCall("ddpm", {"variance": chosen[VARIANCE].removeprefix("fixed")}),
        weights=weights,
        chosen=chosen,
        files=source.files,
        step=listed_step(source),
    )


def _network_arguments(state: Weights) -> dict[str, Any]:
    """Return the constructor arguments of these tensors' U-Net."""
    channels = find_size(state, "conv_in.weight", "conv_in.bias")
    levels = 1 + max(int(m[1]) for name in state if (m := re.match(r"down\.(\d{1,3})\.", name)))
    blocks = len({m[1] for name in state if (m := re.match(r"down\.0\.block\.(\d+)\.", name))})
    parts = ("norm2.weight", "norm2.bias", "conv1.bias", "conv2.bias", "temb_proj.bias")
    widths = [
        find_size(
            state, *(f"down.{level}.block.{j}.{part}" for j in range(blocks) for part in parts)
        )
        for level in range(levels)
    ]
    return {
        "in_channels": find_size(state, "conv_in.weight", axis=1),
        "out_channels": find_size(state, "conv_out.bias", "conv_out.weight"),
        "channels": channels,
        "multipliers": [width // channels for width in widths],
        "blocks": blocks,
        "attention": [
            level
            for level in range(levels)
            if any(name.startswith(f"down.{level}.attn.") for name in state)
        ],
    }


def _name(name: str, levels: int, blocks: int) -> str:
    """Return the format's name of a tensor of our U-Net of so many levels, with blocks in each."""
    words = {
        "embedding_mlp.0": "temb.dense.0",
        "embedding_mlp.2": "temb.dense.1",
        "middle.0": "mid.block_1",
        "middle.1": "mid.attn_1",
        "middle.2": "mid.block_2",
        "shortcut": "nin_shortcut",
        "projection": "temb_proj",
        ".out.": ".proj_out.",
    }

    def place(match: re.Match[str]) -> str:
        way, row, column, part = match[1], int(match[2]), int(match[3]), match[4]
        # A level has one more row than blocks: the downsampling, or on the way up one more block.
        level, index = divmod(row, blocks + 1)
        if way == "up":  # ours counts in running order, theirs as on the way down
            level = levels - 1 - level
        if part == "conv":
            return f"{way}.{level}.{way}sample.conv."
        return f"{way}.{level}.{'attn' if column else 'block'}.{index}.{part}."

    return replace_words(re.sub(r"^(down|up)\.(\d+)\.(\d)\.(\w+)\.", place, name), words)


FORMAT: Final = Format(
    title="pesser/pytorch_diffusion or ermongroup/ddim",
    sign="tensors named temb.dense.0 and down.0.block.0",
    recognizes=_recognizes,
    read=_read,
)
