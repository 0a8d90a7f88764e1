"""The reports of a run: metrics.jsonl, trackers and lines for people; and the signals to it."""

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Self

from difftool.files import write_atomic
from difftool.log import logger
from difftool.train.metrics import METRICS, read_step
from difftool.train.progress import shown
from difftool.train.trackers import Pixels, Tracker

log = logger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Monitor:
    """A writer of a run's records from step `start` on, which drops later ones of an earlier run.

    A record is {"step", "loss", "lr", "grad_norm", "images_per_second"}: the number of finished
    steps, and means over the steps since the last record. After a validation it also has
    "validation_loss". `track` opens the trackers that get the same records.
    """

    def __init__(
        self,
        run: Path,
        *,
        start: int,
        steps: int,
        progress: bool,
        track: Callable[[], list[Tracker]] = list,
    ) -> None:
        self._run, self._start, self._steps, self._progress = run, start, steps, progress
        self._track = track

    def advance(self) -> None:
        """Show one more finished step."""
        if self._shown:
            self._shown.advance()

    def record(self, step: int, **values: float) -> None:
        """Write one record, and show its loss and speed."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for tracker in self._trackers:
            tracker.log(values, step)
        if self._shown:
            self._shown.record(step, values)

    def picture(self, step: int, pixels: Pixels) -> None:
        """Show a sheet of samples, uint8 [H, W, C], in the trackers."""
        for tracker in self._trackers:
            tracker.picture(pixels, step)

    def __enter__(self) -> Self:
        path = self._run / METRICS
        if path.exists():
            write_atomic(path, _until(path, self._start))
        self._trackers = self._track()
        self._file = path.open("a", encoding="utf-8")
        self._shown = shown(self._progress, self._start, self._steps)
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._shown.close()
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


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
    if read_step(last) is not None:  # whole except for its line feed
        lines.append(last)
    kept = []
    for number, line in enumerate(lines, 1):
        step = read_step(line)
        if step is None:
            log.warning("%s: line %d is not a record, and is left out", path, number)
        elif step <= start:
            kept.append(line + b"\n")
    return b"".join(kept)
