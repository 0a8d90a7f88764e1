"""Checks of constructor arguments that several networks share."""

from collections.abc import Sequence

from difftool.errors import UsageError


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}", f"choose one of {', '.join(choices)}")


def check_at_least(least: int, name: str, value: int) -> None:
    if value < least:
        raise UsageError(f"{name} is {value}", f"it must be at least {least}")
