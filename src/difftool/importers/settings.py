"""Settings that tensors do not tell: given by the user, by a file next to them, or by default."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from difftool.errors import ArtefactError, DifftoolError, UsageError, quoted

Value = bool | int | float | str

_WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class Setting:
    """A fact that a format may need besides its tensors, by the name that its authors use.

    - `kind`: bool, int, float or str
    - `default`: the value if none is given; None if one must be given
    - `usual`: the values of well-known files, for the error if none is given
    - `choices`: all values that can be imported; empty for any
    - `also`: other names in configuration files
    """

    name: str
    kind: type[Value]
    default: Value | None = None
    usual: str = ""
    choices: tuple[Value, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return all names by which the value may be given."""
        return (self.name, *self.also)


def fixed(name: str, value: Value, *also: str) -> Setting:
    """Return a setting that is imported with one value only, which is its default."""
    return Setting(name, type(value), value, choices=(value,), also=also)


@dataclass(frozen=True)
class Chosen:
    """The value of every setting, by name; `assumed` names those that have their defaults."""

    values: Mapping[str, Any]
    assumed: tuple[str, ...]

    def __getitem__(self, setting: Setting) -> Any:
        return self.values[setting.name]


class SettingsMissing(UsageError):
    """Settings must be given; `missing` has them all."""

    def __init__(self, missing: Iterable[Setting]) -> None:
        self.missing = tuple(missing)
        names = ", ".join(setting.name for setting in self.missing)
        usual = "; ".join(f"{setting.name}: {setting.usual}" for setting in self.missing)
        flags = " ".join(f"--set {setting.name}=..." for setting in self.missing)
        super().__init__(f"the file does not tell {names}", f"give {flags} ({usual})")


class Settings:
    """The given values: `said` by the user, which goes before the configuration file `beside`."""

    def __init__(self, said: Mapping[str, str], beside: Mapping[str, Any]) -> None:
        self._said: Mapping[str, Any] = dict(said)
        self._beside = _flat(beside)

    def peek(self, setting: Setting) -> Any:
        """Return the value of a setting, or None if it is not given and has no default.

        Raises:
            UsageError: the user's value has another kind or cannot be imported.
            ArtefactError: the file's value has another kind or cannot be imported.
        """
        for given, error in ((self._said, UsageError), (self._beside, ArtefactError)):
            for name in setting.names:
                if name in given:
                    return _checked(setting, given[name], error)
        return setting.default

    def choose(self, *settings: Setting) -> Chosen:
        """Return the values of all settings of a format.

        Raises:
            SettingsMissing: some must be given; the error names all of them.
            UsageError: the format has no such setting; or as `peek`.
        """
        known = {name for setting in settings for name in setting.names}
        for name in self._said:
            if name not in known:
                names = ", ".join(setting.name for setting in settings)
                raise UsageError(f"this format has no setting {quoted(name)}", f"it has: {names}")
        values = {setting.name: self.peek(setting) for setting in settings}
        if missing := [setting for setting in settings if values[setting.name] is None]:
            raise SettingsMissing(missing)
        given = self._said.keys() | self._beside.keys()
        return Chosen(values, tuple(s.name for s in settings if given.isdisjoint(s.names)))


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
    """Convert a value, which may be a word of a command line, to a kind; None if it is not one."""
    if isinstance(value, int) and abs(value) >= 1 << 63:  # Python may refuse to print it
        return None
    if kind is str:
        return str(value) if isinstance(value, str | int | float) else None
    if kind is bool:
        return value if isinstance(value, bool) else _WORDS.get(str(value).lower())
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
        if kind is float:
            return number if math.isfinite(number) else None
        return int(value) if number == int(value) else None
    except (ValueError, OverflowError):
        return None


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: {"model": {"ngf": 8, "ema": None}} becomes {"model.ngf": 8}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat
