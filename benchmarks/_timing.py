"""Comparing speeds on a machine that others use too: the sides take turns."""

import time
from collections.abc import Callable, Mapping, Sequence

Side = Callable[[], object]


def interleave(
    sides: Mapping[str, Side], *, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds that each side took in each round; one round goes before and is not counted.

    Every other round has the opposite order. So a machine that is slow for a while is so to all.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for counted in [False] + [True] * rounds:
        for name in order:
            begin = clock()
            sides[name]()
            elapsed = clock() - begin
            if counted:
                seconds[name].append(elapsed)
        order.reverse()
    return seconds


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Round by round, so that a slow round, which is slow for both, counts no more than others."""
    return [value / divisor for value, divisor in zip(values, base, strict=True)]


def differences(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Round by round."""
    return [value - other for value, other in zip(values, base, strict=True)]
