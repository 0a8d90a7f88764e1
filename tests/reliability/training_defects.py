"""Defects that a criterion must see; each is applied in a process that ends with the test."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from difftool import checkpoint, data, files
from difftool.errors import ResourceError
from difftool.owned import Listing
from difftool.train.state import TrainState


def write_in_place() -> None:
    """Checkpoints are written where they shall stand, over what stands there."""

    @contextlib.contextmanager
    def in_place(path: Path, *, replace: Listing | None = None) -> Iterator[Path]:
        path.mkdir(parents=True, exist_ok=True)
        for old in path.iterdir():
            old.unlink()
        yield path

    checkpoint.atomic_directory = in_place


def drop_the_data_position() -> None:
    """A run that goes on begins with the data anew."""
    restore, batch_indices = TrainState.restore, data.batch_indices
    begin = 0

    def restoring(state: TrainState, folder: Path) -> None:
        nonlocal begin
        restore(state, folder)
        begin = state.step

    def from_the_first(seed: int, step: int, *arguments: Any) -> data.order.Indices:
        return batch_indices(seed, step - begin, *arguments)

    TrainState.restore = restoring  # type: ignore[method-assign]
    data.batch_indices = from_the_first


def skip_the_folders_fsync() -> None:
    """Names are not made to last."""
    files._sync_directory = _nothing


def swallow_errors() -> None:
    """A disk that is full is nobody's business."""
    save = TrainState.save

    def silent(state: TrainState, run: Path) -> Path:
        with contextlib.suppress(ResourceError):
            return save(state, run)
        return run

    TrainState.save = silent  # type: ignore[method-assign]


def _nothing(path: Path) -> None:
    pass


Defect = Callable[[], None]
