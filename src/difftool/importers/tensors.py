"""Turn a source's tensors into those of one of our networks.

A format gives the authors' name of each tensor that we want. So errors can use their names.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.schedules import NoiseSchedule
from difftool.errors import ArtefactError, UsageError
from difftool.importers.settings import Setting
from difftool.importers.source import Source
from difftool.networks import build_network
from difftool.networks.linear_attention_unet import LinearAttentionUNet
from difftool.networks.ncsnpp import NCSNpp
from difftool.networks.refinenet import ConditionalInstanceNormPlus
from difftool.networks.unet import UNet

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

# The kinds of numbers that become float32. Not all operations know the others, such as float8.
_DTYPES: Final = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)
_NORMS: Final = "norms.weight"  # NCSN's, [levels, all norms' gammas, alphas and betas]


def as_weights(value: Any) -> Weights:
    """Return a state dict without DataParallel's prefix; nothing if the value is something else."""
    if not isinstance(value, Mapping):
        return {}
    if not all(isinstance(k, str) and _is_plain(v) for k, v in value.items()):
        return {}
    prefix = "module." if all(name.startswith("module.") for name in value) else ""
    return {name.removeprefix(prefix): tensor.detach() for name, tensor in value.items()}


def take(
    source: Weights, call: NetworkCall, source_name: Callable[[str], str], *, apart: bool = False
) -> Weights:
    """Return the tensors of the network that `call` builds, as copies in float32.

    `source_name` maps our names to the source's. One tensor of ours may be several in the source;
    `_parts` says their names, and with `apart` attention has `q`, `k` and `v` instead of `qkv`.
    Shapes may differ by trailing ones, since some formats have a linear layer for a 1x1
    convolution. ArtefactError names, with the source's names, all tensors that are missing, left
    over, of another shape, or not finite.
    """
    parts = {
        name: {source_name(part): shape for part, shape in shapes.items()}
        for name, shapes in _parts(outline(call), apart=apart).items()
    }
    wanted = {name: shape for shapes in parts.values() for name, shape in shapes.items()}
    there = {name: shape for name, shape in wanted.items() if name in source}
    bent = [name for name, shape in there.items() if _core(source[name].shape) != _core(shape)]
    problems = {
        "missing": sorted(wanted.keys() - source.keys()),
        "surplus": sorted(source.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {list(source[name].shape)} for {list(there[name])}" for name in bent
        ],
        "not finite": [
            name for name in there if name not in bent and not bool(source[name].isfinite().all())
        ],
    }
    found = [f"{problem}: {', '.join(which)}" for problem, which in problems.items() if which]
    if found:
        raise ArtefactError(
            f"the tensors do not fit the network that they describe; {'; '.join(found)}",
            "check that the file is whole, and that its model is the one of the published code",
        )
    # torch.cat copies. It must, because some files have two names for one tensor.
    return {
        name: torch.cat(
            [source[part].to(torch.float32).reshape(shape) for part, shape in shapes.items()],
            dim=1 if name == _NORMS else 0,
        )
        for name, shapes in parts.items()
    }


def outline(call: NetworkCall) -> nn.Module:
    """Build a network without weights; ArtefactError if its arguments describe none of ours."""
    try:
        with torch.device("meta"):
            return build_network(call)
    except UsageError as error:
        raise ArtefactError(
            f"the tensors describe a network that difftool lacks: {error.message}", error.hint
        ) from error


def replace_words(name: str, words: Mapping[str, str]) -> str:
    """Replace each of the words in a name, in the order of `words`."""
    for word, other in words.items():
        name = name.replace(word, other)
    return name


def find_size(source: Weights, *names: str, axis: int = 0) -> int:
    """Return the size along an axis of the first of these tensors that is there.

    ArtefactError if there is none, or it lacks the axis.
    """
    for name in names:
        if name in source and source[name].ndim > axis and source[name].shape[axis]:
            return int(source[name].shape[axis])
    raise ArtefactError(
        f"the tensors describe no network; missing: {', '.join(names)}",
        "check that the file is whole",
    )


def listed_step(source: Source) -> int:
    """Return the training step, the fourth item of the lists that ermongroup's code saves."""
    return as_step(source.item(3))


def as_step(value: Any) -> int:
    """Return a file's training step, or 0 if the value is not one."""
    return value if type(value) is int and value >= 0 else 0


def with_sigmas(
    sigmas: Tensor | None, levels: Setting, most: Setting, least: Setting
) -> tuple[Setting, Setting, Setting]:
    """Return the settings with defaults from a file's own noise levels, from the most noise."""
    if sigmas is None or sigmas.ndim != 1 or not len(sigmas):
        return levels, most, least
    # The short decimal numbers that a configuration had for these float32.
    high, low = (float(f"{value:.6g}") for value in sigmas[[0, -1]].tolist())
    levels = replace(levels, default=len(sigmas))
    return levels, replace(most, default=high), replace(least, default=low)


def check_sigmas(sigmas: Tensor, schedule: NoiseSchedule) -> None:
    """Raise ArtefactError if a file's noise levels, from the most noise, are not the schedule's."""
    found, expected = sigmas.double().numpy(), schedule.sigma[::-1]
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-4):
        raise ArtefactError(
            f"the file's own noise levels are not {schedule}",
            "its configuration is of another model; remove it, or give the right `settings`",
        )


def _parts(network: nn.Module, *, apart: bool) -> dict[str, Shapes]:
    """Return, for each tensor of a network, the tensors that are joined to it, with their shapes.

    The time projections of all residual blocks are one layer of ours, and so are the conditional
    norms of NCSN. In a source each block has a `projection`, and each norm an `embed`.
    """
    parts: dict[str, Shapes] = {}
    for name, value in network.state_dict().items():
        first, *rest = shape = tuple(value.shape)
        if name == _NORMS:
            parts[name] = {
                f"{norm}.embed.weight": (first, 3 * module.channels)
                for norm, module in network.named_modules()
                if isinstance(module, ConditionalInstanceNormPlus)
            }
        elif name.startswith("projections."):
            assert isinstance(network, UNet | NCSNpp | LinearAttentionUNet)
            parts[name] = {
                name.replace("projections", f"{block}.projection"): (module.projection_size, *rest)
                for block, module in network.residual_blocks().items()
            }
        elif apart and ".qkv." in name:
            parts[name] = {name.replace("qkv", part): (first // 3, *rest) for part in "qkv"}
        else:
            parts[name] = {name: shape}
    return parts


def _is_plain(value: Any) -> bool:
    """Tell if a value is a dense tensor of real numbers on the CPU."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.dtype in _DTYPES
    )


def _core(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return tuple(shape)
