"""Read the tensors of yang-song/score_sde_pytorch, whose modules are a list without names.

In the authors' code the configuration decides the list's order. Here the tensors tell it. Our own
modules, numbered in the order in which they run, have the same places.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain, repeat
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from difftool.diffusion.calls import NetworkCall
from difftool.errors import ArtefactError
from difftool.importers.tensors import Weights, find_size, outline, take
from difftool.networks.ncsnpp_layers import FourierEmbedding, InputSkip, ResidualBlock
from difftool.networks.unet_layers import ResampleConv, SelfAttention

PREFIX: Final = "all_modules."
_FREQUENCIES: Final = f"{PREFIX}0.W"  # the Fourier embedding's; a parameter that is never trained
_RESIDUAL: Final = {
    "norm1": "GroupNorm_0",
    "conv1": "Conv_0",
    "projection": "Dense_0",
    "norm2": "GroupNorm_1",
    "conv2": "Conv_1",
}
_ATTENTION: Final = {
    "norm": "GroupNorm_0",
    "q": "NIN_0",
    "k": "NIN_1",
    "v": "NIN_2",
    "out": "NIN_3",
}
_NIN: Final = {"weight": "W", "bias": "b"}
_MODULES: Final = (  # each of these has a place in the list; containers have none
    FourierEmbedding,
    nn.Linear,
    nn.Conv2d,
    nn.GroupNorm,
    ResidualBlock,
    SelfAttention,
    ResampleConv,
    InputSkip,
)


class Part(NamedTuple):
    """A module of the list: its kind, and the prefix of its tensors' names.

    Kinds are "fourier", "linear", "conv", "norm", "residual", "attention", "combine", "resample",
    and "unknown" if tensors are missing.
    """

    kind: str
    name: str


_END: Final = Part("unknown", "")  # after the last module


def take_listed(state: Weights, call: NetworkCall) -> Weights:
    """Return the tensors of the network that `call` builds; in the file NIN's are transposed."""
    state = {
        name: value.T if re.search(r"\.NIN_\d\.W$", name) and value.ndim == 2 else value
        for name, value in state.items()
    }
    places = {name: (f"{PREFIX}{n}", m) for n, (name, m) in enumerate(_listed(outline(call), ""))}
    nin = call.arguments["resample"] == "conv"
    source_name = partial(_source_name, places=places, fir=call.arguments["fir"], nin=nin)
    return take(state, call, source_name, apart=True)


def averaged(state: Weights, shadow: list[Tensor]) -> Weights:
    """Return the state with its moving averages, which are in the order of the trained tensors."""
    names = [name for name in state if name != _FREQUENCIES]
    if len(names) != len(shadow):
        raise ArtefactError(
            f"the file has {len(shadow)} moving averages for {len(names)} trained tensors",
            "check that the file is whole",
        )
    return state | dict(zip(names, shadow, strict=True))


def network_arguments(state: Weights) -> dict[str, Any]:
    """Return those constructor arguments of the network that its tensors tell.

    They never tell "rescale" and "centered", and not always "fir".
    """
    parts = _parts(state)
    first = next((n for n, part in enumerate(parts) if part.kind == "conv"), None)
    if first is None:
        raise ArtefactError(
            "the tensors describe no network; no convolution", "check that the file is whole"
        )
    channels = _size(state, parts[first], "weight", "bias")
    in_channels = _size(state, parts[first], "weight", axis=1)
    arguments: dict[str, Any] = {
        "in_channels": in_channels,
        "channels": channels,
        "embedding": "fourier" if _FREQUENCIES in state else "positional",
        **_down(state, parts[first + 1 :], channels),
        **_output(state, parts, in_channels),
    }
    if any(".Conv2d_0." in name for name in state):
        arguments["fir"] = True
    elif any(part.kind == "resample" for part in parts):
        arguments["fir"] = False
    return arguments


def _down(state: Weights, parts: list[Part], channels: int) -> dict[str, Any]:
    """Return the arguments that the way down tells; `parts` follow the first convolution."""
    blocks = _count_blocks(state, parts)
    rest = chain(parts, repeat(_END))
    part, width = next(rest), channels
    widths: list[int] = []
    attention: set[int] = set()
    nin = any(p.kind == "residual" and f"{p.name}.NIN_0.W" in state for p in parts)
    found = {"input_pyramid": "none", "combine": "sum", "resample": "conv" if nin else "block"}
    while True:
        for _ in range(blocks):
            width = _outputs(state, part) if part.kind == "residual" else width
            part = next(rest)
            if part.kind == "attention":
                attention.add(len(widths))
                part = next(rest)
        widths.append(width)
        if not _changes(state, part):
            break
        part = next(rest)
        if part.kind == "combine":
            found["input_pyramid"] = "input_skip"
            part = next(rest)
            if part.kind == "residual" and _inputs(state, part) == 2 * width:
                found["combine"] = "cat"
        elif part.kind == "resample":
            found["input_pyramid"] = "residual"
            part = next(rest)
    return found | {
        "blocks": blocks,
        "multipliers": [width // channels for width in widths],
        "attention": sorted(attention),
    }


def _count_blocks(state: Weights, parts: list[Part]) -> int:
    """Count the residual blocks of a level: those before the first change of resolution."""
    change = next((n for n, part in enumerate(parts) if _changes(state, part)), len(parts))
    blocks = sum(part.kind == "residual" for part in parts[:change])
    if change == len(parts):  # a single level: n down, two in the middle, n + 1 up
        blocks = (blocks - 3) // 2
    if blocks < 1:
        raise ArtefactError(
            "the tensors describe no network; no block", "check that the file is whole"
        )
    return blocks


def _output(state: Weights, parts: list[Part], in_channels: int) -> dict[str, Any]:
    """Return the output pyramid; a network with one has a norm before the last module."""
    norms = [n for n, part in enumerate(parts) if part.kind == "norm"]
    if len(norms) < 2 or norms[0] + 1 == len(parts):
        return {"output_pyramid": "none"}
    outputs = _size(state, parts[norms[0] + 1], "bias", "weight")
    return {"output_pyramid": "output_skip" if outputs == in_channels else "residual"}


def _parts(state: Weights) -> list[Part]:
    """Return the modules that have tensors, in their order."""
    inside: dict[int, set[str]] = {}
    for name in state:
        if found := re.match(rf"{re.escape(PREFIX)}(\d{{1,3}})\.(.+)", name):
            inside.setdefault(int(found[1]), set()).add(found[2])
    return [
        Part(_kind(state, f"{PREFIX}{place}", inside[place]), f"{PREFIX}{place}")
        for place in sorted(inside)
    ]


def _kind(state: Weights, name: str, inside: set[str]) -> str:
    words = {what.split(".")[0] for what in inside}
    if words & {"Conv_1", "GroupNorm_1", "Dense_0"}:
        return "residual"
    if words & {"NIN_1", "NIN_2", "NIN_3"}:
        return "attention"
    if words & {"Conv2d_0", "Conv_0"}:
        return "resample"
    if "Conv" in words:
        return "combine"
    if "W" in words:
        return "fourier"
    axes = state[f"{name}.weight"].ndim if f"{name}.weight" in state else 0
    return {1: "norm", 2: "linear", 4: "conv"}.get(axes, "unknown")


def _changes(state: Weights, part: Part) -> bool:
    """Tell if a module changes the resolution: only then has a block of even width a shortcut."""
    if part.kind != "residual":
        return part.kind == "resample"
    has_shortcut = any(f"{part.name}.Conv_2.{what}" in state for what in ("weight", "bias"))
    return has_shortcut and _inputs(state, part) == _outputs(state, part)


def _inputs(state: Weights, part: Part) -> int:
    return _size(state, part, "GroupNorm_0.weight", "GroupNorm_0.bias")


def _outputs(state: Weights, part: Part) -> int:
    tensors = "GroupNorm_1.weight", "GroupNorm_1.bias", "Conv_0.bias", "Conv_1.bias", "Dense_0.bias"
    return _size(state, part, *tensors)


def _size(state: Weights, part: Part, *tensors: str, axis: int = 0) -> int:
    """Return the size of the first of these tensors of a module that is there."""
    return find_size(state, *(f"{part.name}.{tensor}" for tensor in tensors), axis=axis)


def _listed(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield our modules that have a place in the list, in its order, by our names."""
    for name, child in module.named_children():
        if isinstance(child, _MODULES):
            yield prefix + name, child
        else:
            yield from _listed(child, f"{prefix}{name}.")


def _source_name(
    name: str, places: Mapping[str, tuple[str, nn.Module]], *, fir: bool, nin: bool
) -> str:
    """Return the format's name of a tensor of ours; with `nin` shortcuts are NINs, as in DDPM."""
    ours = name
    while ours not in places:
        ours = ours.rpartition(".")[0]
    place, module = places[ours]
    part, _, kind = name.removeprefix(f"{ours}.").rpartition(".")
    if isinstance(module, FourierEmbedding):
        return _FREQUENCIES
    if isinstance(module, SelfAttention):
        return f"{place}.{_ATTENTION[part]}.{_NIN[kind] if part != 'norm' else kind}"
    if isinstance(module, ResidualBlock):
        if part == "shortcut":
            return f"{place}.NIN_0.{_NIN[kind]}" if nin else f"{place}.Conv_2.{kind}"
        return f"{place}.{_RESIDUAL[part]}.{kind}"
    if isinstance(module, ResampleConv):
        return f"{place}.{'Conv2d_0' if fir else 'Conv_0'}.{kind}"
    if isinstance(module, InputSkip):
        return f"{place}.Conv.{kind}"
    return f"{place}.{kind}"
