"""Turn a source's tensors into those of one of our networks.

A format gives the authors' name of each tensor that we want. So errors can use their names.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.schedules import NoiseSchedule
from difftool.errors import ArtefactError, UsageError
from difftool.importers.source import Source
from difftool.networks import build_network

Weights = dict[str, Tensor]


class Wanted(NamedTuple):
    """A tensor's name in the source, and the shape in which we need it."""

    source: str
    shape: tuple[int, ...]


class Projected(Protocol):
    """A residual block that takes `projection_size` numbers from the time embedding."""

    projection_size: int


class Projecting(Protocol):
    """A U-Net whose time projections, of all residual blocks, are one linear layer."""

    def state_dict(self) -> dict[str, Any]: ...

    def residual_blocks(self) -> Mapping[str, Projected]: ...


def as_weights(value: Any) -> Weights | None:
    """Return a state dict without DataParallel's prefix; None if the value is something else."""
    if not isinstance(value, Mapping) or not value:
        return None
    if not all(isinstance(k, str) and _is_plain(v) for k, v in value.items()):
        return None
    prefix = "module." if all(name.startswith("module.") for name in value) else ""
    return {name.removeprefix(prefix): tensor.detach() for name, tensor in value.items()}


def outline(call: NetworkCall) -> nn.Module:
    """Build a network without weights; ArtefactError if its arguments describe none of ours."""
    try:
        with torch.device("meta"):
            return build_network(call)
    except UsageError as error:
        raise ArtefactError(
            f"the tensors describe a network that difftool lacks: {error.message}", error.hint
        ) from error


def take(source: Weights, wanted: Mapping[str, Wanted]) -> Weights:
    """Return the wanted tensors by our names, as copies in float32.

    Shapes may differ by trailing ones, since some formats have a linear layer for a 1x1
    convolution. ArtefactError names, with the source's names, all tensors that are missing, left
    over, of another shape, or not finite.
    """
    names = {want.source for want in wanted.values()}
    there = {want.source: want.shape for want in wanted.values() if want.source in source}
    bent = [name for name, shape in there.items() if _core(source[name].shape) != _core(shape)]
    problems = {
        "missing": sorted(names - source.keys()),
        "surplus": sorted(source.keys() - names),
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
    # Copies, because some files have two names for one tensor.
    return {
        name: source[w.source].to(torch.float32, copy=True).reshape(w.shape)
        for name, w in wanted.items()
    }


def take_unet(
    source: Weights, network: Projecting, source_name: Callable[[str], str], *, apart: bool
) -> Weights:
    """Return the tensors of a U-Net.

    `source_name` maps our names to the source's. Two kinds of names are special: each residual
    block has a linear layer `projection` of its own, and with `apart` attention has `q`, `k` and
    `v` instead of `qkv`.
    """
    state = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    fused: dict[str, list[str]] = {}
    wanted: dict[str, Wanted] = {}
    for kind in ("weight", "bias"):
        *_, width = state[f"projections.{kind}"]
        blocks = network.residual_blocks()
        fused[f"projections.{kind}"] = [f"{block}.projection.{kind}" for block in blocks]
        for name, block in zip(fused[f"projections.{kind}"], blocks.values(), strict=True):
            size = block.projection_size
            wanted[name] = Wanted(source_name(name), (size, width) if kind == "weight" else (size,))
    for name, shape in state.items():
        if apart and ".qkv." in name:
            fused[name] = [name.replace(".qkv.", f".{part}.") for part in "qkv"]
            third = (shape[0] // 3, *shape[1:])
            wanted |= {part: Wanted(source_name(part), third) for part in fused[name]}
        elif name not in fused:
            wanted[name] = Wanted(source_name(name), shape)
    taken = take(source, wanted)
    # Join the parts to the one layer that our network has in their place.
    for name, parts in fused.items():
        taken[name] = torch.cat([taken.pop(part) for part in parts])
    return taken


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


def as_decimal(value: Tensor) -> float:
    """Return the short decimal number that a configuration had for a float32."""
    return float(f"{float(value):.6g}")


def check_sigmas(sigmas: Tensor, schedule: NoiseSchedule) -> None:
    """Raise ArtefactError if a file's noise levels, from the most noise, are not the schedule's."""
    expected = schedule.sigma[::-1]
    if sigmas.shape != expected.shape or not np.allclose(sigmas.numpy(), expected, rtol=1e-4):
        raise ArtefactError(
            f"the file's own noise levels are not {schedule}",
            "its configuration is of another model; remove it, or give the right `settings`",
        )


def _is_plain(value: Any) -> bool:
    """Tell if a value is a dense tensor of real numbers on the CPU."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_complex() or value.is_quantized)
    )


def _core(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return tuple(shape)
