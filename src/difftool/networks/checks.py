"""Checks of constructor arguments that several networks share."""

from collections.abc import Sequence
from typing import Final

from difftool.errors import UsageError, quoted

# Of parts that are built one by one: many more take minutes before anything else can be seen.
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
