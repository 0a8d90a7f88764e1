"""Named configurations: those of papers, and those of the models that come with difftool."""

import tomllib
from importlib import resources

from difftool.errors import UsageError, quoted
from difftool.train.config import TrainConfig, parse


def preset_names() -> list[str]:
    """Return the names of all presets."""
    folder = resources.files("difftool.train") / "presets"
    return sorted(
        file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")
    )


def preset(name: str) -> TrainConfig:
    """Return the configuration of a preset; UsageError if there is none of this name."""
    if name not in preset_names():
        raise UsageError(f"unknown preset {quoted(name)}", f"one of: {', '.join(preset_names())}")
    file = resources.files("difftool.train") / "presets" / f"{name}.toml"
    return parse(tomllib.loads(file.read_text(encoding="utf-8")))
