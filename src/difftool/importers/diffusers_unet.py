"""Read a UNet2DModel of diffusers as our U-Net: its options, and the names of its tensors."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from difftool.diffusion.calls import NetworkCall
from difftool.errors import ArtefactError, quoted
from difftool.importers.layout import CLASS
from difftool.importers.settings import Chosen, Setting
from difftool.importers.tensors import Weights, replace_words
from difftool.networks.checks import MOST_LAYERS

Config = Mapping[str, Any]

SIZE: Final = Setting(
    "sample_size", int, usual="such as 32", also=("unet.sample_size", "unet.image_size")
)
_LARGEST: Final = 10_000  # pixels of a side
# The last two are old names.
CLASSES: Final = ("UNet2DModel", "UNetUnconditionalModel", "UNetModel")
# Every option, with its default.
_DEFAULTS: Final[Config] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", *["AttnDownBlock2D"] * 3],
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": [*["AttnUpBlock2D"] * 3, "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
# Options for which our networks have only these values, and those for which our U-Net has.
ALWAYS: Final[Mapping[str, tuple[Any, ...]]] = {
    "mid_block_type": ("UNetMidBlock2D",),
    "act_fn": ("silu", "swish"),
    "add_attention": (True,),
    "class_embed_type": (None,),
}
_IMPORTED: Final[Mapping[str, tuple[Any, ...]]] = {
    **ALWAYS,
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "flip_sin_to_cos": (False, True),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
}
_OLD_OPTIONS: Final = {
    "image_size": "sample_size",
    "num_res_blocks": "layers_per_block",
    "block_channels": "block_out_channels",
    "down_blocks": "down_block_types",
    "up_blocks": "up_block_types",
    "downscale_freq_shift": "freq_shift",
    "resnet_num_groups": "norm_num_groups",
    "resnet_act_fn": "act_fn",
    "resnet_eps": "norm_eps",
    "num_head_channels": "attention_head_dim",
}
_OLD_TENSORS: Final = {  # regular expressions
    r"^mid\.": "mid_block.",
    r"^downsample_blocks\.": "down_blocks.",
    r"^upsample_blocks\.": "up_blocks.",
    r"\.query\.": ".to_q.",
    r"\.key\.": ".to_k.",
    r"\.value\.": ".to_v.",
    r"\.proj_attn\.": ".to_out.0.",
    r"(samplers\.0)\.(op|Conv2d_0)\.": r"\1.conv.",
}
# The library's EMAModel writes these among the options.
STEP: Final = "optimization_step"
_EMA_OPTIONS: Final = (
    STEP,
    "decay",
    "min_decay",
    "update_after_step",
    "use_ema_warmup",
    "inv_gamma",
    "power",
)
_RESAMPLE: Final = {"conv": "conv", "resnet": "block"}
_DOWN: Final = re.compile(r"(Attn)?DownBlock2D|(Resnet)DownsampleBlock2D")
_UP: Final = re.compile(r"(Attn)?UpBlock2D|(Resnet)UpsampleBlock2D")


def options(config: Config) -> dict[str, Any]:
    """Return all options of a UNet2DModel, by their present names.

    ArtefactError if the configuration is of another class, or has options that the class lacks.
    """
    if config.get(CLASS) not in CLASSES:
        raise ArtefactError(
            f"{CLASS} is {quoted(config.get(CLASS))}, which difftool does not import",
            "it imports UNet2DModel, which makes pictures from noise and perhaps a class",
        )
    old = {_OLD_OPTIONS[name]: value for name, value in config.items() if name in _OLD_OPTIONS}
    kept = {
        name: value
        for name, value in config.items()
        if name[:1] != "_" and name not in {*_OLD_OPTIONS, *_EMA_OPTIONS}
    }
    given = {name for name, value in kept.items() if value is not None}
    if unknown := sorted(given - _DEFAULTS.keys()):
        raise ArtefactError(
            f"the configuration has {', '.join(unknown)}, which UNet2DModel has not",
            "remove them if they do not change the network",
        )
    found: dict[str, Any] = {**_DEFAULTS, **old, **kept}
    for name in ("down_block_types", "up_block_types"):
        if not isinstance(found[name], list | tuple) or not found[name]:
            raise refusal(found, name, "it must be a list of blocks")
        found[name] = [str(block).removeprefix("UNetRes") for block in found[name]]
    return found


def present_names(state: Weights) -> Weights:
    """Rename tensors from the names of early versions of the library to the present ones."""
    renamed = {}
    for name, tensor in state.items():
        for old, new in _OLD_TENSORS.items():
            name = re.sub(old, new, name)
        renamed[name] = tensor
    return renamed


def open_size(config: Config) -> list[Setting]:
    """Return the size as a setting, unless the configuration has height and width."""
    return [] if isinstance(config["sample_size"], list | tuple) else [SIZE]


def sizes(config: Config, chosen: Chosen) -> Sequence[int]:
    """Return height and width; ArtefactError if they are not sizes."""
    found = [chosen[SIZE]] * 2 if SIZE.name in chosen.values else config["sample_size"]
    if len(found) != 2 or not all(type(n) is int and 0 < n <= _LARGEST for n in found):
        hint = f"it must be one size, or height and width, of 1 to {_LARGEST}"
        raise refusal({SIZE.name: found}, SIZE.name, hint)
    return found


def unet_network(config: Config) -> tuple[NetworkCall, Callable[[str], str]]:
    """Return our U-Net, and the function from its tensors' names to the library's present ones.

    ArtefactError names an option that our U-Net lacks.
    """
    widths = level_widths(config)
    channels = widths[0]
    attention, up_attention = _attention(config, len(widths))
    check_values(config, {**_IMPORTED, "time_embedding_dim": (None, 4 * channels)})
    if channels % 2 or channels < 4:
        raise refusal(config, "block_out_channels", "the first must be even and at least 4")
    blocks = whole(config, "layers_per_block", most=MOST_LAYERS)
    arguments: dict[str, Any] = {
        "in_channels": whole(config, "in_channels"),
        "out_channels": whole(config, "out_channels"),
        "channels": channels,
        "multipliers": [w / channels if w % channels else w // channels for w in widths],
        "blocks": blocks,
        "attention": attention,
        "dropout": _number(config, "dropout", below=1),
        "norm_eps": _number(config, "norm_eps", below=1),
        "embedding": "cos_sin" if config["flip_sin_to_cos"] else "sin_cos",
        "scale_shift": config["resnet_time_scale_shift"] == "scale_shift",
        "resample": _resample(config, len(widths)),
        "downsample_padding": "symmetric" if config["downsample_padding"] else "asymmetric",
        **_groups(config, widths),
    }
    if up_attention != attention:
        arguments["up_attention"] = up_attention
    shift = _number(config, "freq_shift", below=channels // 2)
    if shift != (0 if config["flip_sin_to_cos"] else 1):
        arguments["frequency_shift"] = shift
    if config["attention_head_dim"] is not None:
        levels = {*attention, *up_attention, len(widths) - 1}
        arguments["head_channels"] = dividing(
            config, "attention_head_dim", [widths[level] for level in levels]
        )
    if config["num_class_embeds"] is not None:
        arguments["classes"] = whole(config, "num_class_embeds")
    return NetworkCall("unet", arguments), namer(blocks)


def namer(blocks: int) -> Callable[[str], str]:
    """Return the function from our tensors' names to the library's, for `blocks` per level."""
    return partial(_name, blocks=blocks)


def refusal(config: Config, name: str, hint: str) -> ArtefactError:
    """Return the error for an option whose value is not imported."""
    return ArtefactError(
        f"{name} is {quoted(config.get(name))}, which difftool does not import", hint
    )


def check_values(config: Config, imported: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise ArtefactError for the first option whose value is not imported."""
    for name, known in imported.items():
        if config[name] not in known:
            values = ", ".join("null" if value is None else str(value) for value in known)
            raise refusal(config, name, f"it imports {values}")


def level_widths(config: Config) -> list[int]:
    """Return the width of each level; ArtefactError if there are none, or more or fewer blocks."""
    widths = config["block_out_channels"]
    listed = widths if isinstance(widths, list | tuple) else []
    if not listed or not all(type(w) is int and 0 < w <= sys.maxsize for w in listed):
        raise refusal(config, "block_out_channels", "it must be a list of widths")
    for name in ("down_block_types", "up_block_types"):
        if len(config[name]) != len(listed):
            raise refusal(config, name, f"it must have {len(listed)}, as block_out_channels")
    return [*listed]


def _attention(config: Config, levels: int) -> tuple[list[int], list[int]]:
    """Return the levels with attention on the way down, and on the way up, which runs backwards."""
    down, up = _blocks(config, "down_block_types", _DOWN), _blocks(config, "up_block_types", _UP)
    return (
        [level for level in range(levels) if down[level] == "Attn"],
        [level for level in range(levels) if up[levels - 1 - level] == "Attn"],
    )


def _resample(config: Config, levels: int) -> str:
    """Return the resampling of all levels; the last block of each way has none."""
    kinds = []
    for name, option, pattern in (
        ("down_block_types", "downsample_type", _DOWN),
        ("up_block_types", "upsample_type", _UP),
    ):
        of = {"": "conv", "Resnet": "resnet", "Attn": config[option]}
        kinds += [of[kind] for kind in _blocks(config, name, pattern)[: levels - 1]]
        if len(set(kinds)) > 1:
            hint = f"with these {name} some levels are resampled by conv and some by resnet"
            raise refusal(config, option, hint)
    return _RESAMPLE[kinds[0]] if kinds else "conv"


def _blocks(config: Config, name: str, pattern: re.Pattern[str]) -> list[str]:
    """Return "Attn", "Resnet" or nothing for each block."""
    found = [pattern.fullmatch(block) for block in config[name]]
    if None in found:
        known = "DownBlock2D, AttnDownBlock2D and ResnetDownsampleBlock2D, and the same for Up"
        raise refusal(config, name, f"it imports {known}")
    return [(match[1] or match[2] or "") if match else "" for match in found]


def _groups(config: Config, widths: Sequence[int]) -> dict[str, int]:
    """Return the groups of the norms; scale and shift need none before the middle's attention."""
    groups = dividing(config, "norm_num_groups", widths)
    if config["attn_norm_num_groups"] is not None:
        middle = dividing(config, "attn_norm_num_groups", widths[-1:])
    else:
        middle = groups if config["resnet_time_scale_shift"] == "default" else 0
    return {"groups": groups, **({} if middle == groups else {"middle_groups": middle})}


def dividing(config: Config, name: str, widths: Sequence[int]) -> int:
    """Return an option that divides all these widths; ArtefactError if it does not."""
    value = whole(config, name)
    for width in widths:
        if width % value:
            raise refusal(config, name, f"it must divide a width of {width} channels")
    return value


def whole(config: Config, name: str, most: int = sys.maxsize) -> int:
    """Return an option that is a whole number from 1 to `most`; ArtefactError if it is not."""
    value = config[name]
    if type(value) is not int or not 1 <= value <= most:
        limit = "of at least 1" if most == sys.maxsize else f"from 1 to {most}"
        raise refusal(config, name, f"it must be a whole number {limit}")
    return value


def _number(config: Config, name: str, below: float) -> float:
    value = config[name]
    if type(value) not in (int, float) or not 0 <= value < below:
        raise refusal(config, name, f"it must be a number from 0 to below {below:g}")
    return float(value)


def _name(name: str, blocks: int) -> str:
    words = {
        "embedding_mlp.0": "time_embedding.linear_1",
        "embedding_mlp.2": "time_embedding.linear_2",
        "label_embedding": "class_embedding",
        "middle.0": "mid_block.resnets.0",
        "middle.2": "mid_block.resnets.1",
        "middle.1": "mid_block.attentions.0",
        "norm_out": "conv_norm_out",
        "projection": "time_emb_proj",
        "shortcut": "conv_shortcut",
        ".norm.": ".group_norm.",
        ".q.": ".to_q.",
        ".k.": ".to_k.",
        ".v.": ".to_v.",
        ".out.": ".to_out.0.",
    }

    def place(match: re.Match[str]) -> str:
        way, row, column, part = match[1], int(match[2]), int(match[3]), match[4]
        # A level has one more row than blocks: the downsampling, or on the way up one more block.
        level, index = divmod(row, blocks + 1)
        kind = "attentions" if part in ("norm", "q", "k", "v", "out") else "resnets"
        resampling = column > 0 if way == "up" else index == blocks
        if part == "conv" or (kind == "resnets" and resampling):
            kind, index = f"{way}samplers", 0
        return f"{way}_blocks.{level}.{kind}.{index}.{part}."

    return replace_words(re.sub(r"^(down|up)\.(\d+)\.(\d)\.(\w+)\.", place, name), words)
