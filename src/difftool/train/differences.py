"""What differs between two configurations, or between a model and a training."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from difftool.errors import quoted, short

_NAMED: Final = 3  # differences that a message names


def differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield the keys that differ, by their whole names, with both values; None for one not set."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        if before != now:
            yield name, (before, now)
        return
    for key in {**before, **now}:
        inner = f"{name}.{key}" if name else str(key)
        yield from differences(before.get(key), now.get(key), inner)


def listed(found: Mapping[str, tuple[Any, Any]]) -> str:
    """Return differences in one line, such as "run.batch 8, not 16"; "" if there are none."""
    named = [
        f"{key} {_word(before)}, not {_word(now)}"
        for key, (before, now) in [*found.items()][:_NAMED]
    ]
    more = [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return "; ".join(named + more)


def _word(value: Any) -> str:
    if value is None:
        return "none"
    return short(value, 100) if isinstance(value, str) else quoted(value)
