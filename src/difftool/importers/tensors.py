"""From a source's tensors to those of one of our networks.

A format says, for each tensor that we want, what its authors call it. So whatever does not fit can
be reported in their words.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from difftool.diffusion.calls import NetworkCall
from difftool.errors import ArtefactError, UsageError
from difftool.importers.source import Source
from difftool.networks import build_network

Weights = dict[str, Tensor]


class Wanted(NamedTuple):
    """A tensor by its name in the source, and the shape that we need it in."""

    source: str
    shape: tuple[int, ...]


class Projected(Protocol):
    """A residual block that takes so many numbers of the time embedding."""

    projection_size: int


class Projecting(Protocol):
    """A U-Net whose time projections, of all residual blocks, are one linear layer."""

    def state_dict(self) -> dict[str, Any]: ...

    def residual_blocks(self) -> Mapping[str, Projected]: ...


def weights_of(value: Any) -> Weights | None:
    """A state dict by its names, without DataParallel's prefix; None if it is none."""
    if not isinstance(value, Mapping) or not value:
        return None
    if not all(isinstance(k, str) and _is_plain(v) for k, v in value.items()):
        return None
    prefix = "module." if all(name.startswith("module.") for name in value) else ""
    return {name.removeprefix(prefix): tensor.detach() for name, tensor in value.items()}


def outline(call: NetworkCall) -> nn.Module:
    """A network without weights; ArtefactError if the arguments describe none of ours."""
    try:
        with torch.device("meta"):
            return build_network(call)
    except UsageError as error:
        raise ArtefactError(
            f"the tensors describe a network that difftool has not: {error.message}", error.hint
        ) from error


def take(source: Weights, wanted: Mapping[str, Wanted]) -> Weights:
    """The wanted tensors by our names, as float32 of their own.

    Shapes may differ by trailing ones: a 1x1 convolution is a linear layer elsewhere. ArtefactError
    names, in the source's words, all tensors that are missing, left over, of another shape, or not
    finite.
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
            "is the file whole, and its model unchanged from the published code?",
        )
    return {  # copies, for some files have two names for one tensor
        name: source[w.source].to(torch.float32, copy=True).reshape(w.shape)
        for name, w in wanted.items()
    }


def take_unet(
    source: Weights, network: Projecting, source_name: Callable[[str], str], *, apart: bool
) -> Weights:
    """The tensors of a U-Net.

    `source_name` is given our names, but that each residual block has its own linear layer
    `projection`; with `apart` attention has `q`, `k` and `v` instead of `qkv`.
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
    for name, parts in fused.items():
        taken[name] = torch.cat([taken.pop(part) for part in parts])
    return taken


def replace_words(name: str, words: Mapping[str, str]) -> str:
    """`name` with each word that stands in it replaced, in the order of `words`."""
    for word, other in words.items():
        name = name.replace(word, other)
    return name


def size_of(source: Weights, *names: str, axis: int = 0) -> int:
    """The size along an axis of the first of these tensors that has one; else ArtefactError."""
    for name in names:
        if name in source and source[name].ndim > axis and source[name].shape[axis]:
            return int(source[name].shape[axis])
    raise ArtefactError(
        f"the tensors describe no network; missing: {', '.join(names)}", "is the file whole?"
    )


def step_of(source: Source) -> int:
    """The training step, which ermongroup's repositories save as the fourth item of a list."""
    step = source.item(3)
    return step if type(step) is int and step >= 0 else 0


def _is_plain(value: Any) -> bool:
    """Whether a value is a tensor of real numbers that are all there."""
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
