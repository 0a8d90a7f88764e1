"""What tensors do not tell: said on the command line, in a file beside them, or by default."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from difftool.errors import ArtefactError, DifftoolError, UsageError, quoted

Value = bool | int | float | str

_WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class Setting:
    """One thing that a format may have to be told, by the name that its authors use.

    - `kind`: bool, int, float or str
    - `default`: what holds if nothing is said; None if it must be said
    - `usual`: for the hint of one that must be said: the values of well-known files
    - `choices`: all values that can be imported; empty for any
    - `also`: other names in configuration files
    """

    name: str
    kind: type[Value]
    default: Value | None = None
    usual: str = ""
    choices: tuple[Value, ...] = ()
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """The value of every setting, by name; `assumed` names those that nothing had said."""

    values: Mapping[str, Any]
    assumed: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


class SettingsMissing(UsageError):
    """Settings that have to be said; `missing` has them all."""

    def __init__(self, missing: Iterable[Setting]) -> None:
        self.missing = tuple(missing)
        names = ", ".join(setting.name for setting in self.missing)
        usual = "; ".join(f"{setting.name}: {setting.usual}" for setting in self.missing)
        flags = " ".join(f"--set {setting.name}=..." for setting in self.missing)
        super().__init__(f"the file does not tell {names}", f"say {flags} ({usual})")


class Settings:
    """Where values come from: `said` goes before `beside`, the contents of a configuration file."""

    def __init__(self, said: Mapping[str, str], beside: Mapping[str, Any]) -> None:
        self._said = dict(said)
        self._beside = _flat(beside)

    def peek(self, setting: Setting) -> Any:
        """The value of a setting, or None if nothing says it and it has no default.

        Raises:
            UsageError, ArtefactError: it is of another kind, or not one that can be imported; as
                the command line or the file says it.
        """
        for name in (setting.name, *setting.also):
            if name in self._said:
                return _checked(setting, self._said[name], UsageError)
        for name in (setting.name, *setting.also):
            if self._beside.get(name) is not None:
                return _checked(setting, self._beside[name], ArtefactError)
        return setting.default

    def choose(self, *settings: Setting) -> Chosen:
        """The values of all settings of a format.

        Raises:
            SettingsMissing: some must be said; it names them all.
            UsageError: something is said that the format has no use for; or as `peek`.
        """
        known = {name for setting in settings for name in (setting.name, *setting.also)}
        for name in self._said:
            if name not in known:
                names = ", ".join(setting.name for setting in settings)
                raise UsageError(f"this format has no setting {quoted(name)}", f"it has: {names}")
        values = {setting.name: self.peek(setting) for setting in settings}
        if missing := [setting for setting in settings if values[setting.name] is None]:
            raise SettingsMissing(missing)
        sources = self._said.keys() | {k for k, v in self._beside.items() if v is not None}
        assumed = [s.name for s in settings if sources.isdisjoint((s.name, *s.also))]
        return Chosen(values, tuple(assumed))


def _checked(setting: Setting, value: Any, error: type[DifftoolError]) -> Value:
    result = _converted(setting.kind, value)
    if result is None:
        raise error(
            f"{setting.name} is {quoted(value)}", f"it must be of type {setting.kind.__name__}"
        )
    if setting.kind is int and result != setting.default and float(result) < 1:
        raise error(f"{setting.name} is {result}", "it must be at least 1")
    if setting.choices and result not in setting.choices:
        raise error(
            f"{setting.name} is {quoted(result)}, which difftool does not import",
            f"it imports: {', '.join(map(str, setting.choices))}",
        )
    return result


def _converted(kind: type[Value], value: Any) -> Value | None:
    """`value`, which a command line gives as a word, as one of a kind; None if it is not."""
    if isinstance(value, int) and abs(value) >= 1 << 63:  # perhaps more digits than Python prints
        return None
    if kind is str:
        return str(value) if isinstance(value, str | int | float) else None
    if kind is bool:
        return value if isinstance(value, bool) else _WORDS.get(str(value).lower())
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
        if not math.isfinite(number):
            return None
        return number if kind is float else int(value) if number == int(value) else None
    except (ValueError, OverflowError):
        return None


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model": {"ngf": 8}} -> {"model.ngf": 8}"""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
