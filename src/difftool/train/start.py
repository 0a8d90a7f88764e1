"""Start a training from the weights of a checkpoint: fine-tuning, or a second stage."""

from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.log import logger
from difftool.networks.trained import load_checkpoint
from difftool.train.differences import differences, listed

LABELS: Final = "label_embedding.weight"
_NAMED = 3  # tensors that an error names

log = logger(__name__)


def start_weights(path: Path | str, network: nn.Module, call: NetworkCall, spec: ModelSpec) -> None:
    """Give a network, made by `call`, the weights of a checkpoint: their average, if it has one.

    A network with classes may start from one without. Its null label is then the zero vector, so
    that with it the network computes what the checkpoint's does. The other labels start at random,
    since labels that are alike at first are told apart late. Weights of a
    model of another kind are taken with a warning: a network that predicted epsilon soon learns to
    predict v.

    Raises:
        ArtefactError: `path` is not a checkpoint, or a damaged one.
        UsageError: the checkpoint's network has other tensors.
    """
    loaded = load_checkpoint(path)
    given: dict[str, Tensor] = loaded.network.state_dict()
    wanted = network.state_dict()
    if LABELS in wanted and LABELS not in given:
        given[LABELS] = wanted[LABELS].clone()
        given[LABELS][spec.classes or 0 :] = 0.0  # the null label, if there is one
    if differing := _misfits(given, wanted):
        raise UsageError(
            f"the network {call.kind} does not fit the weights of {path}, a {loaded.call.kind}: "
            + "; ".join(differing[:_NAMED])
            + (f"; and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""),
            f"set network.kind and network.arguments as 'difftool inspect {path}' shows them",
        )
    if meaning := dict(differences(_meaning(loaded.spec), _meaning(spec))):
        log.warning("%s has %s: its weights mean something else at first", path, listed(meaning))
    network.load_state_dict(given)


def _meaning(spec: ModelSpec) -> dict[str, Any]:
    """Return what decides what a network's input and output mean."""
    return {
        "parameterization": spec.parameterization,
        "schedule": spec.schedule.to_dict(),
        "cond": spec.cond,
        "data_range": spec.data_range,
    }


def _misfits(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """Tell how the names and shapes of two sets of tensors differ, in the order of names."""
    found = []
    for name in sorted(given.keys() | wanted.keys()):
        if name not in given:
            found.append(f"{name} is missing")
        elif name not in wanted:
            found.append(f"{name} is surplus")
        elif given[name].shape != wanted[name].shape:
            shapes = list(given[name].shape), list(wanted[name].shape)
            found.append(f"{name} is {shapes[0]}, not {shapes[1]}")
    return found
