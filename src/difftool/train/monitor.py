"""The reports of a run: metrics.jsonl, TensorBoard and lines for people; and the signals to it."""

import json
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from difftool.files import write_atomic
from difftool.log import logger
from difftool.train.progress import shown

METRICS = "metrics.jsonl"
log = logger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Monitor:
    """A writer of a run's records from step `start` on, which drops later ones of an earlier run.

    A record is {"step", "loss", "lr", "grad_norm", "images_per_second"}: the number of finished
    steps, and means over the steps since the last record.
    """

    def __init__(self, run: Path, *, start: int, steps: int, progress: bool) -> None:
        self._run, self._start, self._steps, self._progress = run, start, steps, progress

    def advance(self) -> None:
        """Show one more finished step."""
        if self._shown:
            self._shown.advance()

    def record(self, step: int, **values: float) -> None:
        """Write one record, and show its loss and speed."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if self._shown:
            self._shown.record(step, values)

    def __enter__(self) -> Self:
        path = self._run / METRICS
        if path.exists():
            write_atomic(path, _until(path, self._start))
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(self._run / "tensorboard", purge_step=self._start)
        self._shown = shown(self._progress, self._start, self._steps)
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._shown.close()
        self._board.close()
        self._file.close()


class Interrupt:
    """A handler of Ctrl-C and SIGTERM, which sets `requested` so that the step can end.

    A second signal stops the process at once.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Self:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
            for number in _SIGNALS:
                signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.__exit__()


def _until(path: Path, start: int) -> bytes:
    """Return the records of steps up to `start`.

    Other lines are left out with a warning, but a last line that a crash cut off without one.
    """
    *lines, last = path.read_bytes().split(b"\n")
    if _read_step(last) is not None:  # whole except for its line feed
        lines.append(last)
    kept = []
    for number, line in enumerate(lines, 1):
        step = _read_step(line)
        if step is None:
            log.warning("%s: line %d is not a record, and is left out", path, number)
        elif step <= start:
            kept.append(line + b"\n")
    return b"".join(kept)


def _read_step(line: bytes) -> int | None:
    """Return the step of a record; None if the line is anything else."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = value.get("step") if isinstance(value, dict) else None
    return step if type(step) is int else None
