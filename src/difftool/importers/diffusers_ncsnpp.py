"""diffusers' form of NCSN++: a UNet2DModel of skip blocks, such as google/ncsnpp-church-256.

The network is score_sde_pytorch's with skips in both pyramids. Options of other blocks are refused
by name.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from difftool.diffusion.calls import NetworkCall
from difftool.importers.diffusers_unet import (
    ALWAYS,
    Config,
    check_values,
    dividing,
    level_widths,
    refusal,
    whole,
)
from difftool.importers.tensors import replace_words
from difftool.networks.checks import MOST_LAYERS
from difftool.networks.ncsnpp_layers import group_count

_SKIP: Final = re.compile(r"(Attn)?Skip(Down|Up)Block2D")
_CHANNELS: Final = 3  # the pyramids always have so many
_ATTENTION_GROUPS: Final = 32  # the attention in blocks always has so many
# Options for which our network has only these values.
_IMPORTED: Final[Mapping[str, tuple[Any, ...]]] = {
    **ALWAYS,
    "in_channels": (_CHANNELS,),
    "out_channels": (_CHANNELS,),
    "center_input_sample": (False, True),
    "time_embedding_type": ("positional", "fourier"),
    "norm_eps": (1e-6,),
    "resnet_time_scale_shift": ("default",),
    "num_class_embeds": (None,),
}


def is_ncsnpp(config: Config) -> bool:
    """Tell if all blocks of a UNet2DModel with these options are skip blocks."""
    return all(_SKIP.fullmatch(b) for b in (*config["down_block_types"], *config["up_block_types"]))


def ncsnpp_network(config: Config) -> tuple[NetworkCall, Callable[[str], str]]:
    """Return our network, and the function from its tensors' names to the library's present ones.

    ArtefactError names an option that our network lacks.
    """
    widths = level_widths(config)
    if any(width % widths[0] for width in widths):
        raise refusal(config, "block_out_channels", "they must be multiples of the first")
    fourier = config["time_embedding_type"] == "fourier"
    check_values(config, {**_IMPORTED, "time_embedding_dim": (None, 4 * widths[0])})
    scale = config["mid_block_scale_factor"]
    if type(scale) not in (int, float) or not math.isclose(scale, math.sqrt(2), rel_tol=1e-6):
        raise refusal(config, "mid_block_scale_factor", "the other blocks divide by sqrt(2)")
    if not fourier:
        check_values(config, {"flip_sin_to_cos": (False,), "freq_shift": (1,)})
    attention = _attention(config, len(widths))
    _check_groups(config, widths, attention)
    head_channels = config["attention_head_dim"]
    if head_channels is not None:
        attended = [widths[level] for level in {*attention, len(widths) - 1}]
        head_channels = dividing(config, "attention_head_dim", attended)
    arguments = {
        "in_channels": _CHANNELS,
        "channels": widths[0],
        "multipliers": [width // widths[0] for width in widths],
        "blocks": whole(config, "layers_per_block", most=MOST_LAYERS),
        "attention": attention,
        "head_channels": head_channels,
        "input_pyramid": "input_skip",
        "output_pyramid": "output_skip",
        "embedding": "fourier" if fourier else "positional",
        "centered": not config["center_input_sample"],
    }
    return NetworkCall("ncsnpp", arguments), partial(_source_name, last=len(widths) - 1)


def _attention(config: Config, levels: int) -> list[int]:
    """Return the levels with attention, which must be the same on both ways."""
    down, up = config["down_block_types"], config["up_block_types"][::-1]
    found = [["Attn" in block for block in blocks] for blocks in (down, up)]
    if found[0] != found[1]:
        raise refusal(
            config, "up_block_types", "the way down must have attention at the same levels"
        )
    return [level for level in range(levels) if found[0][level]]


def _check_groups(config: Config, widths: Sequence[int], attention: Sequence[int]) -> None:
    """Raise ArtefactError if a norm has other groups than the same norm of ours.

    Both count a quarter of the channels, at most 32. But the library always has 32 before
    attention, and the configured number in the middle and before the output.
    """
    for level in attention:
        if group_count(widths[level]) != _ATTENTION_GROUPS:
            hint = "levels with attention must have 128 channels or more"
            raise refusal(config, "block_out_channels", hint)
    places = {"norm_num_groups": (widths[0], widths[-1]), "attn_norm_num_groups": (widths[-1],)}
    for name, norms in places.items():
        if config[name] is not None and any(config[name] != group_count(width) for width in norms):
            raise refusal(config, name, "it imports null, which counts a quarter of the channels")


def _source_name(name: str, last: int) -> str:
    """Return the library's name of a tensor of ours; `last` is the number of the last level up."""
    words = {
        "embedding.frequencies": "time_proj.weight",
        "embedding_mlp.0": "time_embedding.linear_1",
        "embedding_mlp.2": "time_embedding.linear_2",
        "middle.0": "mid_block.resnets.0",
        "middle.1": "mid_block.attentions.0",
        "middle.2": "mid_block.resnets.1",
        f"up.{last}.pyramid.head.norm": "conv_norm_out",
        f"up.{last}.pyramid.head.conv": "conv_out",
        "pyramid.head.norm": "skip_norm",
        "pyramid.head.conv": "skip_conv",
        "pyramid.conv": "skip_conv",
        "shortcut": "conv_shortcut",
        "projection": "time_emb_proj",
        ".q.": ".to_q.",
        ".k.": ".to_k.",
        ".v.": ".to_v.",
        ".out.": ".to_out.0.",
    }
    name = replace_words(name, words)
    name = re.sub(r"^(down|up)\.(\d+)\.rows\.(\d+)\.0", r"\1_blocks.\2.resnets.\3", name)
    name = re.sub(r"^down\.(\d+)\.rows\.(\d+)\.1\.", r"down_blocks.\1.attentions.\2.", name)
    name = re.sub(r"^up\.(\d+)\.rows\.\d+\.1\.", r"up_blocks.\1.attentions.0.", name)
    name = re.sub(r"(attentions\.\d+)\.norm\.", r"\1.group_norm.", name)
    name = re.sub(r"^(down|up)\.(\d+)\.change", r"\1_blocks.\2.resnet_\1", name)
    return re.sub(r"^(down|up)\.(\d+)\.", r"\1_blocks.\2.", name)
