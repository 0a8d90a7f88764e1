"""Configurations that went wrong: every key of every preset, with values of every kind.

A case is a preset and overrides of it, as `--set` takes them. Networks are narrow and data sets
small, so that what is accepted trains a step in a moment.
"""

import inspect
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from difftool.diffusion.samplers import SAMPLERS
from difftool.diffusion.schedules import KINDS as SCHEDULES
from difftool.networks import NETWORKS
from difftool.train.config import TrainConfig, apply_overrides
from difftool.train.presets import preset, preset_names

VALUES: Final = (
    *("0", "1", "-1", "2", "3", "7", str(2**31), str(2**63), "9" * 400, "0x" + "f" * 5000),
    *("0.0", "-0.0", "0.5", "-0.5", "1.5", "1e308", "-1e308", "1e-320", "nan", "inf", "-inf"),
    *('""', '"x"', "auto", "none", '"' + "long " * 20_000 + '"', '"\\u0000"', "\udcff", "1 \n 2"),
    *("[]", "[0]", "[1]", "[1, 2]", "[-1]", "[0.5]", '["x"]', "[[1]]", "[true]", "[1e308]"),
    *("[" + "1, " * 40 + "1]", "{}", "{a = 1}", "{a = {b = [1]}}", "[" * 5000, "{a = " * 5000),
    *("true", "false", "2020-01-01", "12:00:00"),
)
# Sizes and sources of data that a network may not be made for.
DATA: Final = ("size=7", "size=1", "size=2", "size=3", "mode=L", "source=moons", "source=digits")


@dataclass(frozen=True)
class Recipe:
    """A preset, and what is said otherwise."""

    preset: str
    overrides: tuple[str, ...]

    def __repr__(self) -> str:
        return f"{self.preset} {' '.join(text[:80] for text in self.overrides)!a}"


def small(name: str, images: Path) -> TrainConfig:
    """Return a preset with a narrow network, and with 4 images instead of a data set on the hub."""
    config = preset(name)
    width = {"unet": config.network.arguments.get("groups", 32), "mlp": None}
    channels = width.get(config.network.kind, 4)
    overrides = ["run.steps=1", "run.batch=2"]
    overrides += [] if channels is None else [f"network.arguments.channels={channels}"]
    for data in ("mnist", "cifar10"):
        if config.data.source.endswith(data):
            overrides.append(f"data.source={images / data}.parquet")
    return apply_overrides(config, overrides)


def all_recipes() -> Iterator[Recipe]:
    """Yield every key with every value, and data that the network is not made for."""
    for name in preset_names():
        config = preset(name)
        for key in keys(config):
            yield from (Recipe(name, (f"{key}={value}",)) for value in VALUES)
        yield from (Recipe(name, (f"data.{choice}",)) for choice in DATA)
        yield from (Recipe(name, (f"network.kind={kind}",)) for kind in NETWORKS)
        yield from (Recipe(name, (f"sampler.name={sampler}",)) for sampler in SAMPLERS)
        yield from (Recipe(name, (f"schedule={{kind = '{kind}'}}",)) for kind in SCHEDULES)


def recipes(count: int) -> list[Recipe]:
    """Return so many: half of them of one override, the others of two."""
    rng = random.Random(0)
    known = list(all_recipes())
    rng.shuffle(known)
    pairs = [
        Recipe(one.preset, (*one.overrides, *other.overrides))
        for one, other in zip(known, rng.sample(known, len(known)), strict=True)
    ]
    return [*known[: count // 2], *pairs[: count - count // 2]]


def keys(config: TrainConfig) -> list[str]:
    """Return the keys that can be set in a configuration, and those of its sections."""
    arguments = {
        "network.arguments": inspect.signature(NETWORKS[config.network.kind]).parameters,
        "sampler.arguments": list(inspect.signature(SAMPLERS[config.sampler.name]).parameters)[1:],
        "schedule": inspect.signature(SCHEDULES[config.schedule["kind"]]).parameters,
    }
    found = dict.fromkeys(_paths(config.model_dump(), ""))
    found |= {f"{section}.{key}": None for section, known in arguments.items() for key in known}
    return list(found)


def _paths(value: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, inner in value.items():
        yield prefix + key
        if isinstance(inner, dict):
            yield from _paths(inner, f"{prefix}{key}.")
