"""diffusers' form of NCSN++: a UNet2DModel of skip blocks, and the scheduler of the VE SDE.

Such are google/ncsnpp-church-256 and its siblings. The network is that of score_sde_pytorch with
both pyramids of skips; options that only these blocks' relatives know are refused by name.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from difftool.diffusion.schedules import geometric
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError
from difftool.train.importers.tensors import Weights, outline, replace_words, take_unet
from difftool.train.networks.ncsnpp import NCSNpp
from difftool.train.networks.ncsnpp_layers import groups_of

Config = Mapping[str, Any]

_SKIP: Final = re.compile(r"(Attn)?Skip(Down|Up)Block2D")
_CHANNELS: Final = 3  # of the pyramids, whatever the network's own
_ATTENTION_GROUPS: Final = 32  # of the blocks' attention, whatever the width
# What the blocks can do and our network cannot; the first value is what an absent key means.
_FIXED: Final[Mapping[str, tuple[Any, ...]]] = {
    "in_channels": (_CHANNELS,),
    "out_channels": (_CHANNELS,),
    "time_embedding_type": ("positional", "fourier"),
    "mid_block_type": ("UNetMidBlock2D",),
    "act_fn": ("silu", "swish"),
    "norm_eps": (1e-5, 1e-6),
    "resnet_time_scale_shift": ("default",),
    "add_attention": (True,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
}


def is_ncsnpp(config: Config) -> bool:
    """Whether all blocks of a UNet2DModel are skip blocks."""
    blocks = [*_types(config, "down_block_types"), *_types(config, "up_block_types")]
    return bool(blocks) and all(_SKIP.fullmatch(block) for block in blocks)


def ncsnpp_arguments(config: Config) -> dict[str, Any]:
    """The constructor arguments of our network; ArtefactError names the option that it has not."""
    for name, known in _FIXED.items():
        if config.get(name, known[0]) not in known:
            raise _refusal(config, name, f"it imports {', '.join(map(str, known))}")
    widths = _widths(config)
    fourier = config.get("time_embedding_type") == "fourier"
    if config.get("norm_eps", 1e-5) != 1e-6:
        raise _refusal(config, "norm_eps", "these networks were trained with 1e-6")
    if not math.isclose(config.get("mid_block_scale_factor", 1), math.sqrt(2), rel_tol=1e-6):
        raise _refusal(config, "mid_block_scale_factor", "the other blocks divide by sqrt(2)")
    if config.get("time_embedding_dim") not in (None, 4 * widths[0]):
        raise _refusal(config, "time_embedding_dim", f"it imports {4 * widths[0]}")
    if not fourier and (config.get("flip_sin_to_cos", True) or config.get("freq_shift", 0) != 1):
        raise _refusal(config, "flip_sin_to_cos", "it imports false with a freq_shift of 1")
    attention = _attention(config, widths)
    _check_groups(config, widths, attention)
    return {
        "in_channels": _CHANNELS,
        "channels": widths[0],
        "multipliers": [width // widths[0] for width in widths],
        "blocks": config.get("layers_per_block", 2),
        "attention": attention,
        "head_channels": config.get("attention_head_dim", 8),
        "input_pyramid": "input_skip",
        "output_pyramid": "output_skip",
        "embedding": "fourier" if fourier else "positional",
        "centered": not config.get("center_input_sample", False),
    }


def take_ncsnpp(state: Weights, arguments: Mapping[str, Any]) -> Weights:
    """The tensors of the network with these arguments, from the library's present names."""
    network = outline("ncsnpp", arguments)
    assert isinstance(network, NCSNpp)
    last = len(arguments["multipliers"]) - 1
    return take_unet(state, network, partial(_source_name, last=last), apart=True)


def ve_spec(config: Config, scheduler: Config) -> ModelSpec:
    """The model that ScoreSdeVePipeline samples; the network divides its output by sigma there."""
    size = config.get("sample_size")
    sizes = [size, size] if isinstance(size, int) else size
    if not isinstance(sizes, Sequence) or len(sizes) != 2:
        raise _refusal(config, "sample_size", "it must be one size, or height and width")
    return ModelSpec(
        shape=(_CHANNELS, *sizes),
        schedule=geometric(
            levels=scheduler.get("num_train_timesteps", 2000),
            sigma_min=scheduler.get("sigma_min", 0.01),
            sigma_max=scheduler.get("sigma_max", 1348.0),
        ),
        parameterization="scaled_score",
        cond="quarter_log_sigma",
        data_range=(0.0, 1.0),
    )


def ve_program(scheduler: Config) -> dict[str, Any]:
    """The pipeline's sampler, on all levels."""
    corrections = scheduler.get("correct_steps", 1)
    if not corrections:
        return {"sampler": "reverse_diffusion", "arguments": {"clip": False}}
    arguments = {
        "corrections": corrections,
        "snr": scheduler.get("snr", 0.15),
        "corrector": "reference",
        "clip": False,
    }
    return {"sampler": "predictor_corrector", "arguments": arguments}


def _types(config: Config, key: str) -> list[str]:
    value = config.get(key)
    return [str(block) for block in value] if isinstance(value, list | tuple) else []


def _widths(config: Config) -> list[int]:
    """The width of each level, of which the first must divide the others."""
    widths = config.get("block_out_channels")
    count = len(_types(config, "down_block_types"))
    if (
        not isinstance(widths, list | tuple)
        or len(widths) != count
        or not all(type(width) is int and width > 0 for width in widths)
        or any(width % widths[0] for width in widths)
    ):
        hint = f"it must be {count} widths, all of them multiples of the first"
        raise _refusal(config, "block_out_channels", hint)
    return list(widths)


def _attention(config: Config, widths: Sequence[int]) -> list[int]:
    """The levels with attention, which must be the same on both ways."""
    down, up = _types(config, "down_block_types"), _types(config, "up_block_types")[::-1]
    found = [["Attn" in block for block in blocks] for blocks in (down, up)]
    if found[0] != found[1]:
        raise _refusal(config, "up_block_types", "attention must be where the way down has it")
    return [level for level in range(len(widths)) if found[0][level]]


def _check_groups(config: Config, widths: Sequence[int], attention: Sequence[int]) -> None:
    """ArtefactError where a norm has other groups than the same norm of ours.

    The library counts a quarter of the channels, at most 32, as we do; but always 32 before
    attention, and what is configured in the middle and before the output.
    """
    for level in attention:
        if groups_of(widths[level]) != _ATTENTION_GROUPS:
            hint = "levels with attention must have 128 channels or more"
            raise _refusal(config, "block_out_channels", hint)
    places = {"norm_num_groups": (widths[0], widths[-1]), "attn_norm_num_groups": (widths[-1],)}
    for name, norms in places.items():
        count = config.get(name, 32 if name == "norm_num_groups" else None)
        if count is not None and any(count != groups_of(width) for width in norms):
            raise _refusal(config, name, "it imports null, which counts a quarter of the channels")


def _refusal(config: Config, name: str, hint: str) -> ArtefactError:
    return ArtefactError(
        f"{name} is {config.get(name)!r}, which difftool does not import in a network of skip "
        "blocks",
        hint,
    )


def _source_name(name: str, last: int) -> str:
    """What the library calls a tensor of ours; `last` is the number of the finest level up."""
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
