"""Checks of constructor arguments that several networks share."""

from collections.abc import Iterable, Sequence
from typing import Final

from difftool.errors import UsageError, quoted

# Parts are built one by one, and many more would take minutes before any other check fails.
MOST_LAYERS: Final = 100
MOST_LEVELS: Final = 16


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {quoted(value)}", f"choose one of {', '.join(choices)}")


def check_at_least(least: int, name: str, value: int) -> None:
    if value < least:
        raise UsageError(f"{name} is {value}", f"it must be at least {least}")


def check_at_most(most: int, name: str, value: int) -> None:
    if value > most:
        raise UsageError(f"{name} is {value}", f"it must be at most {most}")


def check_levels(multipliers: Sequence[float], name: str, chosen: Iterable[int]) -> None:
    """Check the number of resolutions, and that argument `name` chooses among them."""
    count = len(multipliers)
    check_at_least(1, "the number of multipliers", count)
    check_at_most(MOST_LEVELS, "the number of multipliers", count)
    for level in chosen:
        if level not in range(count):
            raise UsageError(
                f"{name} names level {level}", f"levels are 0 (full resolution) to {count - 1}"
            )


def check_embedding(channels: int) -> None:
    check_at_least(4, "channels", channels)
    if channels % 2:
        raise UsageError(f"channels is {channels}", "the time embedding needs an even number")


def check_groups(groups: int, widths: Iterable[int]) -> None:
    check_at_least(1, "groups", groups)
    for width in widths:
        if width < 1 or width % groups:
            raise UsageError(
                f"groups={groups} does not divide a width of {width} channels",
                "choose groups that divides channels",
            )
