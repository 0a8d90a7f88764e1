"""Named configurations: those of papers, and those of the models that come with difftool."""

from pathlib import Path
from typing import Final

from difftool.errors import UsageError, quoted
from difftool.train.config import TrainConfig, read_toml
from difftool.train.distillation.config import DistillConfig, read_distill_toml

_FOLDER: Final = Path(__file__).parent / "presets"
_DISTILL: Final = _FOLDER / "distill"


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def preset(name: str) -> TrainConfig:
    """Return the configuration of a preset; UsageError if there is none of this name."""
    return read_toml(_found(_FOLDER, name))


def distill_preset(name: str) -> DistillConfig:
    """Return the configuration of a distillation's preset; UsageError if there is none."""
    return read_distill_toml(_found(_DISTILL, name))


def _found(folder: Path, name: str) -> Path:
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        raise UsageError(f"unknown preset {quoted(name)}", f"one of: {', '.join(known)}")
    return folder / f"{name}.toml"
