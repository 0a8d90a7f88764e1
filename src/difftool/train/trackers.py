"""Where a run's records go apart from metrics.jsonl: TensorBoard, and Weights & Biases."""

import importlib.util
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from accelerate.tracking import WandBTracker
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from difftool.errors import MissingDependencyError, ResourceError, first_line
from difftool.files import write_atomic

PROJECT: Final = "difftool"  # of Weights & Biases; WANDB_PROJECT has no effect on it
WANDB: Final = "wandb"
ID: Final = "wandb-id"  # a file of the run, so that a resumed one goes on there
SAMPLES: Final = "samples"  # the name of pictures

Pixels = NDArray[np.uint8]


class Tracker(Protocol):
    """A place for records."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add the values of a step."""

    def picture(self, pixels: Pixels, step: int) -> None:
        """Add a sheet of samples, uint8 [H, W, C]."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """TensorBoard's files in the run's folder, without what an earlier run did after `start`."""

    def __init__(self, run: Path, start: int) -> None:
        self._board = SummaryWriter(run / "tensorboard", purge_step=start)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add the values of a step."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def picture(self, pixels: Pixels, step: int) -> None:
        """Add a sheet of samples."""
        self._board.add_image(SAMPLES, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._board.close()


class WeightsAndBiases:
    """A run of Weights & Biases, by the tracker of accelerate.

    ResourceError if it does not start: there is no account, or nobody answers.
    """

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        settings = {"name": run.name, "dir": str(run), "id": _id(run), "resume": "allow"}
        try:
            self._tracker = WandBTracker(PROJECT, **settings)
            if hasattr(self._tracker, "start"):  # without it, an older accelerate has done so
                self._tracker.start()
            self._tracker.store_init_configuration(dict(config))
        except Exception as error:  # its own errors, and those of its network, share no class
            raise ResourceError(
                f"Weights & Biases does not start: {first_line(error)}",
                "run: wandb login; or set WANDB_MODE=offline; or leave it out of run.trackers",
            ) from error

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add the values of a step."""
        self._tracker.log(dict(values), step=step)

    def picture(self, pixels: Pixels, step: int) -> None:
        """Add a sheet of samples."""
        self._tracker.log_images(
            {SAMPLES: [pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels]}, step=step
        )

    def close(self) -> None:
        """Write what is left."""
        self._tracker.finish()


def require_trackers(names: Sequence[str]) -> None:
    """Raise MissingDependencyError if the library of a tracker is not installed."""
    if WANDB in names and importlib.util.find_spec(WANDB) is None:
        raise MissingDependencyError(
            "wandb is not installed", "run: pip install wandb; or leave it out of run.trackers"
        )


def opened(names: Sequence[str], run: Path, start: int, config: Mapping[str, Any]) -> list[Tracker]:
    """Open trackers for a run that begins with step `start`."""
    found: list[Tracker] = []
    if "tensorboard" in names:
        found.append(TensorBoard(run, start))
    if WANDB in names:
        found.append(WeightsAndBiases(run, config))
    return found


def _id(run: Path) -> str:
    """Return the name by which Weights & Biases knows a run."""
    path = run / ID
    if not path.exists():
        write_atomic(path, secrets.token_hex(8).encode())
    return path.read_text(encoding="utf-8").strip()
