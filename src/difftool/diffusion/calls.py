"""Calls as plain data: the name of a sampler or network and its arguments, and their checks."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Final, Self, Union, get_args, get_origin, get_type_hints

from difftool.errors import UsageError, quoted

_LARGEST_INT: Final = (1 << 63) - 1


@dataclass(frozen=True)
class SamplerCall:
    """A sampler's name and arguments, from which a program is compiled and which files keep.

    The name is empty in a program that was made by hand, and in a request that only changes
    arguments of a model's own sampler.
    """

    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})"

    def changed_by(self, asked: "SamplerCall") -> "SamplerCall":
        """Return this call with a request's arguments, or the request if it names another one."""
        if asked.name not in ("", self.name):
            return asked
        return SamplerCall(self.name, {**self.arguments, **asked.arguments})

    def shortened(self, levels: int, whole: int) -> "SamplerCall":
        """Return the call for `levels` of a whole schedule's, with that share of its steps."""
        steps = self.arguments.get("steps")
        if not isinstance(steps, int):
            return self
        kept = max(1, round(steps * levels / whole))
        return SamplerCall(self.name, {**self.arguments, "steps": kept})

    def to_dict(self) -> dict[str, Any]:
        """Return the call as bundles, checkpoints and saved programs keep it."""
        return {"sampler": self.name, "arguments": dict(self.arguments)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave; KeyError, TypeError or ValueError if it is anything else."""
        return cls(str(value["sampler"]), dict(value["arguments"]))


@dataclass(frozen=True)
class NetworkCall:
    """A network's kind and constructor arguments, from which `difftool.networks` builds it."""

    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the call as bundles and checkpoints keep it."""
        return {"kind": self.kind, "arguments": dict(self.arguments)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave; KeyError, TypeError or ValueError if it is anything else."""
        return cls(value["kind"], dict(value["arguments"]))


def require_known(what: str, name: Any, known: Collection[str]) -> None:
    """Raise UsageError, with all names that are known, if this is none of them."""
    if name not in tuple(known):  # not a lookup: a name from a file need not be hashable
        raise UsageError(f"unknown {what} {quoted(name)}", f"one of: {', '.join(known)}")


def require_types(what: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for the first argument of `what` whose type does not fit its parameter.

    A bool is not a number, numbers are finite, and integers have at most 64 bits. Names that the
    function does not know pass; the function itself refuses them.
    """
    kinds = get_type_hints(function)
    for name, value in arguments.items():
        if name in kinds and not fits(value, kinds[name]):
            raise UsageError(
                f"{what}'s {name} is {quoted(value)}", f"give one of type {type_name(kinds[name])}"
            )


def fits(value: Any, kind: Any) -> bool:
    """Tell if a value from a file or a user is of a parameter's type, as `require_types` says."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, choice) for choice in inner)
    if origin in (Sequence, tuple):  # a list will do for a tuple, as JSON has none
        if not isinstance(value, list | tuple):
            return False
        kinds = [inner[0]] * len(value) if origin is Sequence or ... in inner else inner
        return len(kinds) == len(value) and all(map(fits, value, kinds))
    if origin is not None:  # such as NDArray[float64]; its inner type is not checked
        return isinstance(value, origin)
    if kind in (int, float) and isinstance(value, bool):  # in Python a bool is an int
        return False
    if kind is int:
        return isinstance(value, Integral) and abs(int(value)) <= _LARGEST_INT
    if kind is float:
        return isinstance(value, Integral) or (isinstance(value, Real) and math.isfinite(value))
    return isinstance(value, kind)


def type_name(kind: Any) -> str:
    """Return a type in words, such as `int or none`."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(type_name, get_args(kind)))
    if get_origin(kind) is Sequence:
        return f"list of {type_name(get_args(kind)[0])}"
    return "none" if kind is NoneType else getattr(kind, "__name__", str(kind))
