"""The distribution of x before the first row of a program."""

import math
from dataclasses import dataclass

from difftool.errors import UsageError


@dataclass(frozen=True)
class Start:
    """The distribution of x before the first row.

    `kind` "normal" is N(0, high^2), "uniform" is on [low, high], and "data" is a given clean sample
    with the noise of the first row's level.
    """

    kind: str
    low: float
    high: float

    def __str__(self) -> str:
        if self.kind == "data":
            return "data()"
        if self.kind == "normal":
            return f"normal({self.high!r})"
        return f"uniform({self.low!r}, {self.high!r})"


def data() -> Start:
    """Start from given clean samples with the noise of the first row's level."""
    return Start("data", 0.0, 0.0)


def normal(scale: float) -> Start:
    """Start from N(0, scale^2)."""
    return Start("normal", 0.0, scale)


def uniform(low: float, high: float) -> Start:
    """Start from the uniform distribution on [low, high]."""
    return Start("uniform", low, high)


def parse_start(text: str) -> Start:
    """Read a Start from its text: "normal(std)", "uniform(low, high)" or "data()"."""
    if text.strip() == "data()":
        return data()
    kind, _, numbers = text.strip().removesuffix(")").partition("(")
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        values = []
    if kind == "normal" and len(values) == 1 and 0 < values[0] < math.inf:
        return normal(*values)
    if kind == "uniform" and len(values) == 2 and -math.inf < values[0] < values[1] < math.inf:
        return uniform(*values)
    raise UsageError(f"unknown start {text!r}", 'write "normal(std)" or "uniform(low, high)"')
