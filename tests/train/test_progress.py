"""What a run tells people, on a clock of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from difftool.train.progress import PARTS, SILENCE, Lines, duration
from difftool.train.trainer import TrainedRun

VALUES = {"loss": 0.5, "lr": 0.1, "grad_norm": 2.0, "images_per_second": 10.0}


class Clock:
    """A clock that stands until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """The lines on stderr since the last look."""

    class Lately(list[str]):
        def __iter__(self) -> Iterator[str]:
            return iter(capsys.readouterr().err.splitlines())

    return Lately()  # type: ignore[return-value]


def test_a_quick_run_has_a_line_for_each_part_and_one_at_its_end(
    clock: Clock, told: list[str]
) -> None:
    lines = Lines(50, 1050, clock)
    for step in range(51, 1051):
        clock.now += 0.01
        lines.advance()
        if step % 10 == 0:
            lines.record(step, VALUES)
    said = [*told]
    assert len(said) == PARTS
    assert said[0] == "step 100 of 1050, loss 0.5, 10.0 images/s, 10 s left"
    assert said[-1] == "step 1050 of 1050, loss 0.5, 10.0 images/s"


def test_a_slow_run_is_never_silent_for_long(clock: Clock, told: list[str]) -> None:
    """Before its first record, and between two, which are ten hours apart."""
    lines = Lines(0, 100_000, clock)
    for _ in range(3):
        clock.now += SILENCE / 2
        lines.advance()
    assert [*told] == ["step 2 of 100000, 34 days 17 h left"]
    lines.record(3, VALUES | {"validation_loss": 0.25})
    assert [*told] == []
    clock.now += SILENCE
    lines.advance()
    (said,) = told
    assert said.startswith("step 4 of 100000, loss 0.5, 10.0 images/s, validation loss 0.25, ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (86_400 + 3600, "1 day 1 h"),
        (864_000, "10 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_run_ends_with_a_sentence() -> None:
    path = Path("runs/x")
    run = TrainedRun(path, path / "c", 30, taken=30, seconds=61, loss=0.123456)
    assert str(run) == "30 steps in 1 min 1 s, loss 0.1235 -> runs/x"
    resumed = TrainedRun(path, path / "c", 30, taken=1, seconds=0.2, loss=1.0)
    assert str(resumed) == "1 step to 30 in 0 s, loss 1 -> runs/x"
    done = TrainedRun(path, path / "c", 30, taken=0, seconds=0.2, loss=None)
    assert str(done) == "all 30 steps were done before -> runs/x"
