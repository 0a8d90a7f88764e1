"""Values of a configuration that survive both TOML and JSON."""

import math
from collections.abc import Mapping
from typing import Any, Final

from difftool.errors import UsageError, quoted, short

_MOST_DEEP: Final = 16  # a checkpoint adds a few levels, up to JSON_DEPTH


def require_plain(value: Any, where: tuple[str, ...] = ()) -> None:
    """Raise UsageError for the first value that does not survive both."""
    if what := _not_plain(value, len(where)):
        raise UsageError(
            f"configuration: {short('.'.join(where), 100)}: {what}",
            "--print-config writes one that is plain data",
        )
    if isinstance(value, Mapping):
        for key, item in value.items():
            require_plain(key, where)
            require_plain(item, (*where, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            require_plain(item, (*where, str(index)))


def _not_plain(value: Any, depth: int) -> str:
    """Return what is wrong with a value itself, or ""."""
    match value:
        case None | bool():
            return ""
        case str():
            # Half of a surrogate pair is a character that cannot be written.
            half = any("\ud800" <= character <= "\udfff" for character in value)
            return f"{quoted(value)} is not a text" if half else ""
        case float():
            return "" if math.isfinite(value) else "a number is not finite"
        case int():
            return "" if abs(value) < 1 << 63 else "a number has more than 64 bits"
        case Mapping() | list() | tuple():
            return "" if depth <= _MOST_DEEP else f"it nests more than {_MOST_DEEP} deep"
        case _:
            return f"a {type(value).__name__} has no meaning here"
