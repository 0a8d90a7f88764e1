"""Compare speeds on a machine that others use too: the candidates take turns."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

Clock = Callable[[], float]  # seconds
Turn = Callable[[], object]
T = TypeVar("T")


def take_turns(candidates: Mapping[str, Callable[[], T]], *, rounds: int) -> dict[str, list[T]]:
    """Call every candidate once in a round, and collect what each returns.

    Every other round has the opposite order. So a machine that is slow for a while is so to all.
    """
    found: dict[str, list[T]] = {name: [] for name in candidates}
    order = list(candidates)
    for _ in range(rounds):
        for name in order:
            found[name].append(candidates[name]())
        order.reverse()
    return found


def interleave(
    candidates: Mapping[str, Turn], *, rounds: int, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Measure the seconds of each candidate in each round; the first round is not counted."""

    def time_turn(turn: Turn) -> float:
        begin = clock()
        turn()
        return clock() - begin

    turns = {name: partial(time_turn, turn) for name, turn in candidates.items()}
    taken = take_turns(turns, rounds=rounds + 1)
    return {name: seconds[1:] for name, seconds in taken.items()}


def repeated(call: Turn, count: int) -> Turn:
    """Make one turn of so many calls."""

    def turn() -> None:
        for _ in range(count):
            call()

    return turn


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Divide round by round, so that a round that is slow for both counts no more than others."""
    return [value / divisor for value, divisor in zip(values, base, strict=True)]


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after so many seconds; only for the main thread, and not on Windows."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"not ready within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
