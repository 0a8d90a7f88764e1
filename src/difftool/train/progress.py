"""What a run tells people on stderr: a bar on a terminal, and a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PARTS: Final = 20  # lines of a run whose steps are quick
SILENCE: Final = 60.0  # seconds after which there is a line in any case
_UNITS: Final = (("day", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


class Bar:
    """A bar, which needs a terminal."""

    def __init__(self, start: int, steps: int) -> None:
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4g}  {task.fields[speed]:.1f} images/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(
            "", total=steps, completed=start, loss=float("nan"), speed=0.0
        )
        self._bar.start()

    def advance(self) -> None:
        """Move the bar by a step."""
        self._bar.advance(self._task)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Show loss and speed beside the bar."""
        self._bar.update(self._task, loss=values["loss"], speed=values["images_per_second"])

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()


class Lines:
    """A line for each twentieth of the steps, and one after each minute without any.

    The losses are those of the last record, because reading newer ones would wait for the device.
    """

    def __init__(self, start: int, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._start, self._step, self._steps, self._clock = start, start, steps, clock
        self._begun = self._told_at = clock()
        self._told, self._values = start, dict[str, float]()

    def advance(self) -> None:
        """Print a line if there was none for a minute."""
        self._step += 1
        if self._clock() - self._told_at >= SILENCE:
            self._tell()

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Print a line if a twentieth of the steps is done since the last one."""
        self._step, self._values = step, {**self._values, **values}
        enough = (step - self._told) * PARTS >= self._steps - self._start
        if step > self._told and (enough or step == self._steps):
            self._tell()

    def close(self) -> None:
        """Print nothing: the run itself says how it ended."""

    def _tell(self) -> None:
        now = self._clock()
        done, left = self._step - self._start, self._steps - self._step
        parts = [f"step {self._step} of {self._steps}", *map(_named, self._values.items())]
        if left:
            parts.append(f"{duration((now - self._begun) * left / done)} left")
        print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)
        self._told, self._told_at = self._step, now


def shown(progress: bool, start: int, steps: int) -> Bar | Lines | None:
    """Return what suits stderr; None without `progress`."""
    if not progress:
        return None
    return Bar(start, steps) if sys.stderr.isatty() else Lines(start, steps)


def tell_resumed(run: Path, step: int, changes: str) -> None:
    """Print that a run goes on, and what has changed in its configuration."""
    also = f"; it had {changes}" if changes else ""
    print(f"going on in {run} after step {step}{also}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return a time in its largest unit and the next one, such as "2 min 5 s"."""
    left, counts = max(0, round(seconds)), []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        counts.append((count, unit))
    first = next((i for i, (count, _) in enumerate(counts) if count), len(counts) - 1)
    (count, unit), *rest = counts[first : first + 2]
    plural = "s" if unit == "day" and count > 1 else ""
    return " ".join([f"{count} {unit}{plural}", *(f"{n} {of}" for n, of in rest if n)])


def counted(count: int, thing: str) -> str:
    """Return how many things there are, such as "1 step" and "2 steps"."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _named(item: tuple[str, float]) -> str:
    name, value = item
    match name:
        case "loss":
            return f"loss {value:.4g}"
        case "validation_loss":
            return f"validation loss {value:.4g}"
        case "images_per_second":
            return f"{value:.1f} images/s"
        case _:
            return ""
