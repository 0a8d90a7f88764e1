"""Whether plain values, as JSON and TOML have them, fit what is called by name."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from difftool.errors import UsageError, quoted

_LARGEST_INT: Final = (1 << 63) - 1


def require_types(what: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """UsageError names the first argument of `what` that has another type than its parameter.

    A bool is no number, a number is finite, and an index has at most 64 bits. Names that the
    function does not know are left to it.
    """
    kinds = get_type_hints(function)
    for name, value in arguments.items():
        if name in kinds and not _fits(value, kinds[name]):
            raise UsageError(
                f"{what}'s {name} is {quoted(value)}", f"give one of type {_name(kinds[name])}"
            )


def _fits(value: Any, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, choice) for choice in get_args(kind))
    if origin is Sequence:
        (inner,) = get_args(kind)
        return isinstance(value, list | tuple) and all(_fits(item, inner) for item in value)
    if origin is not None:
        return isinstance(value, origin)
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is int:
        return isinstance(value, Integral) and abs(int(value)) <= _LARGEST_INT
    if kind is float:
        return isinstance(value, Integral) or (isinstance(value, Real) and math.isfinite(value))
    return isinstance(value, kind)


def _name(kind: Any) -> str:
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(_name, get_args(kind)))
    if get_origin(kind) is Sequence:
        return f"list of {_name(get_args(kind)[0])}"
    return "none" if kind is NoneType else getattr(kind, "__name__", str(kind))
