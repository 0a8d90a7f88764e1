"""What may change when a run is resumed, and what has changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from difftool import checkpoint as ckpt
from difftool.errors import ArtefactError, UsageError
from difftool.train.config import TrainConfig, parse_as, read_toml_as
from difftool.train.differences import differences, listed
from difftool.train.distillation.config import DistillConfig

EDITED: Final = "if it was edited, undo that; else use an earlier checkpoint"
# The settings that may change; True stands for all of a section.
FREE: Final[Mapping[str, Any]] = {
    "data": {"source"},
    "validation": {"every", "samples"},
    "optimizer": {"accumulate"},
    "sampler": True,
    "run": {"steps", "log_every", "checkpoint_every", "keep", "sample_every", "trackers"},
}
# Stages are parts of a distillation's steps, so their number may not change. Its teacher may have
# moved; the sha256 of its weights may not change.
FREE_OF_DISTILLATION: Final[Mapping[str, Any]] = {
    "teacher": True,
    **{section: FREE[section] for section in ("data", "optimizer")},
    "run": FREE["run"] - {"steps"},
}
CONFIG_TOML: Final = "config.toml"  # in a run's folder


def run_config(run: Path | str) -> TrainConfig | DistillConfig:
    """Return the configuration of a run, with which it goes on.

    It is that of the newest whole checkpoint, or of the folder's config.toml if the run ended
    before it made one.

    Raises:
        UsageError: `run` holds no run.
        ArtefactError: it has no record of its training, or a damaged one.
    """
    run = Path(run)
    if not ckpt.list_checkpoints(run):
        path = run / CONFIG_TOML
        if not path.is_file():
            raise UsageError(f"{run} holds no run to resume", "give the folder of a run")
        if b"\nteacher = " in b"\n" + path.read_bytes():
            return read_toml_as(DistillConfig, path)
        return read_toml_as(TrainConfig, path)
    folder = ckpt.find_checkpoint(run)
    saved = ckpt.read_config(folder)["training"]
    return earlier(DistillConfig if "teacher" in (saved or ()) else TrainConfig, saved, folder)


def earlier(
    kind: type[TrainConfig] | type[DistillConfig], saved: Any, folder: Path
) -> TrainConfig | DistillConfig:
    """Read the configuration in a checkpoint; the newer settings have their defaults."""
    if saved is None:
        raise ArtefactError(f"{folder} has no record of its training", "start a run of its own")
    try:
        return parse_as(kind, saved)
    except UsageError as error:
        raise ArtefactError(f"{folder}: {error.message}", EDITED) from error


def require_same_run(
    saved: dict[str, Any] | None, config: TrainConfig | DistillConfig, folder: Path
) -> str:
    """Return what differs from before and may; "" if nothing does.

    UsageError if something differs that may not: it names keys, with both values.
    """
    free: Any = FREE if isinstance(config, TrainConfig) else FREE_OF_DISTILLATION
    before = earlier(type(config), saved, folder)
    was, now = (each.model_dump(mode="json", exclude=free) for each in (before, config))
    if refused := dict(differences(was, now)):
        raise UsageError(
            f"{folder} was trained with {listed(refused)}",
            "give the same, or another output folder",
        )
    was, now = (each.model_dump(mode="json") for each in (before, config))
    return listed(dict(differences(was, now)))


def require_same_teacher(saved: Any, present: dict[str, Any], folder: Path) -> None:
    """Raise UsageError for another teacher."""
    if not isinstance(saved, dict) or saved.get("teacher_sha256") != present["teacher_sha256"]:
        raise UsageError(
            f"{folder} was distilled from another teacher",
            "give the same one, or another output folder",
        )
