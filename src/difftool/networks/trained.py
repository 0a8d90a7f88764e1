"""Load the network of a checkpoint, with its weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from difftool.checkpoint import (
    CONFIG,
    EMA,
    MODEL,
    find_checkpoint,
    read_config,
    read_tensors,
)
from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, first_line
from difftool.networks import build_network

_KINDS: Final = {EMA: "ema", MODEL: "raw"}


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with its description.

    The network was built from `call`, and `sampler` makes the default program. `weights` names the
    loaded ones, "ema" or "raw".
    """

    spec: ModelSpec
    network: nn.Module
    call: NetworkCall
    sampler: SamplerCall
    config: dict[str, Any]
    step: int
    path: Path
    weights: str


def load_checkpoint(path: Path | str, *, ema: bool = True) -> Checkpoint:
    """Load the network of a checkpoint folder, or of the newest whole checkpoint of a run.

    With `ema` its weights are their moving average, if there is one.

    Raises:
        ArtefactError: `path` is not a checkpoint, is damaged or of a newer format, or its
            configuration does not fit its weights.
    """
    folder = find_checkpoint(path)
    config = read_config(folder)
    weights = EMA if ema and EMA in config["files"] else MODEL
    if weights not in config["files"]:
        raise ArtefactError(f"{folder} holds no {weights}", "choose its other weights")
    try:
        spec = ModelSpec.from_dict(config["spec"])
        call = NetworkCall.from_dict(config["network"])
        sampler = SamplerCall.from_dict(config["program"])
        # Sizes alone take no memory. The network itself is made once the weights are known to fit.
        with torch.device("meta"):
            sizes = build_network(call).state_dict()
    except Exception as error:  # a network may raise anything for arguments that make no sense
        raise ArtefactError(
            f"{folder / CONFIG} does not describe a model: {first_line(error)}",
            "if it was edited, undo that; else use another checkpoint",
        ) from error
    tensors = read_tensors(folder / weights, sizes)
    network = build_network(call)
    network.load_state_dict(tensors)
    network.eval().requires_grad_(False)
    return Checkpoint(spec, network, call, sampler, config, config["step"], folder, _KINDS[weights])
