"""Named configurations: those of papers, and those of the models that come with difftool."""

from pathlib import Path
from typing import Final

from difftool.errors import UsageError, quoted
from difftool.train.config import TrainConfig, read_toml

_FOLDER: Final = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def preset(name: str) -> TrainConfig:
    """Return the configuration of a preset; UsageError if there is none of this name."""
    if name not in preset_names():
        raise UsageError(f"unknown preset {quoted(name)}", f"one of: {', '.join(preset_names())}")
    return read_toml(_FOLDER / f"{name}.toml")
