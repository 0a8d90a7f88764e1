"""All keys of a configuration, and what each is, for pages and programs."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from difftool.diffusion.schedules import KINDS
from difftool.train.sections import Section
from difftool.train.written import default_of

FILLED_IN: Final = (
    *("dimensions", "in_channels", "out_channels", "levels", "classes", "null_label"),
)
"""The arguments of networks that follow from data and schedule."""


@dataclass(frozen=True)
class Key:
    """A key of a configuration, or a section, whose keys come behind it.

    - `name`: with its section, such as "optimizer.lr"
    - `default`: as TOML; "none" if the key may be left out, and "" if it must be given
    - `text`: what it is
    """

    name: str
    default: str
    text: str
    section: bool = False


def keys(kind: type[Section], before: str = "") -> Iterator[Key]:
    """Yield all keys of TrainConfig or DistillConfig; first those without a section."""
    fields = kind.model_fields
    inner = {
        name: field.annotation
        for name, field in fields.items()
        if inspect.isclass(field.annotation) and issubclass(field.annotation, Section)
    }
    for name, field in fields.items():
        if name not in inner:
            text = " ".join((field.description or "").split())
            yield Key(before + name, default_of(field), text)
    for name, section in inner.items():
        yield Key(before + name, "", inspect.getdoc(section) or "", section=True)
        yield from keys(section, f"{before}{name}.")


def network_arguments() -> Mapping[str, Mapping[str, Any]]:
    """Return the arguments of each network, with their defaults; without those of FILLED_IN."""
    from difftool.networks import NETWORKS  # here, so that the keys are known without PyTorch

    return {
        name: {key: value for key, value in _taken(make).items() if key not in FILLED_IN}
        for name, make in NETWORKS.items()
    }


def schedule_arguments() -> Mapping[str, Mapping[str, Any]]:
    """Return the arguments of each noise schedule, with their defaults."""
    return {name: _taken(make) for name, make in KINDS.items()}


def _taken(make: Any) -> dict[str, Any]:
    """Return the parameters of a function; one that must be given has the default `...`."""
    found = inspect.signature(make).parameters.values()
    return {each.name: ... if each.default is each.empty else each.default for each in found}
