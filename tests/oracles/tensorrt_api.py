"""Stand-ins for TensorRT's Python API that refuse whatever a version does not have.

`tensorrt_api.json` holds the names and signatures of each version. `tensorrt_names.py` read them
out of NVIDIA's own bindings: the wheels `tensorrt-cu12-bindings` and `tensorrt-cu13-bindings` of
TensorRT 10.7, 10.13, 11.0 and 11.4, and `tensorrt-rtx-cu13-bindings` 1.7.1.

A test writes a class for each of TensorRT's that it plays. `stand_in` makes a module of them in
which a name, an enum's member or an argument that the version lacks is an error, as it is in the
bindings. Names that begin with an underscore are the test's own.
"""

import enum
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TABLE = json.loads(Path(__file__).with_name("tensorrt_api.json").read_text(encoding="utf-8"))
VERSIONS = tuple(_TABLE["sources"])
RTX = "rtx-1.7"
PROPER = tuple(version for version in VERSIONS if version != RTX)
_TYPES: Mapping[str, Any] = {
    "int": int,
    "str": str,
    "bool": bool,
    "float": (int, float),
    "Buffer": (bytes, bytearray, memoryview),
    "Dims": (tuple, list),
    "tuple": tuple,
    "list": list,
}


class Value(enum.Enum):
    """A member of one of TensorRT's enums, which `int` turns into its number."""

    def __int__(self) -> int:
        return int(self.value)


class Api:
    """The names of a version: class -> name -> the signatures that it has, none for a property."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.classes: dict[str, dict[str, list[str]]] = {}
        self.enums: dict[str, list[str]] = {}
        for line in (name for name, has in _TABLE["names"].items() if version in has.split()):
            if "(" not in line and "=" in line:
                kind, member = line.split("=")
                self.enums.setdefault(kind, []).append(member)
                continue
            kind, name, arguments = re.fullmatch(r"(\w+)(?:\.(\w+)(?:\((.*)\))?)?", line).groups()
            found = self.classes.setdefault(kind, {}).setdefault(name or "", [])
            if arguments is not None:
                found.append(arguments)
        for kind in self.enums:
            del self.classes[kind]


def stand_in(version: str, *parts: type) -> Any:
    """Return a module with the API of a version; `parts` play its classes of the same names."""
    api = Api(version)
    played: dict[str, Any] = {
        name: Value(name, {member: index for index, member in enumerate(members)})
        for name, members in api.enums.items()
    }
    for name in ("ILogger", "IProgressMonitor"):  # those that a caller derives from
        played[name] = _base(name, api, played)
    severities = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
    for severity, name in enumerate(severities):
        setattr(played["ILogger"], name, severity)
    for part in parts:
        if part.__name__ in api.classes:
            played[part.__name__] = _strict(part, api, played)

    class Module:
        __version__ = version.removeprefix("rtx-") + ".0"

        def __getattr__(self, name: str) -> Any:
            if name in played:
                return played[name]
            if name in api.classes:
                raise NotImplementedError(f"this test plays no {name}")
            raise AttributeError(f"TensorRT {version} has no {name}")

    return Module()


def _base(kind: str, api: Api, played: Mapping[str, Any]) -> type:
    names = api.classes[kind]

    class Base:
        def __init__(self) -> None:
            pass

        def __init_subclass__(cls) -> None:
            wrong = [name for name in vars(cls) if not name.startswith("_") and name not in names]
            assert not wrong, f"{kind} of TensorRT {api.version} calls no {wrong}"

    Base.__name__ = kind
    return Base


def _strict(part: type, api: Api, played: Mapping[str, Any]) -> type:
    kind, names = part.__name__, api.classes[part.__name__]

    def known(name: str) -> None:
        if not name.startswith("_") and name not in names:
            raise AttributeError(f"{kind} of TensorRT {api.version} has no {name}")

    class Strict(part):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)

        def __getattribute__(self, name: str) -> Any:
            if name.startswith("_"):
                return super().__getattribute__(name)
            known(name)
            try:
                value = super().__getattribute__(name)
            except AttributeError:
                raise NotImplementedError(f"this test plays no {kind}.{name}") from None
            if not names[name]:
                return value

            def call(*arguments: Any, **named: Any) -> Any:
                if not any(_fits(each, arguments, named, played) for each in names[name]):
                    raise TypeError(f"{name}(): incompatible arguments, known are {names[name]}")
                return value(*arguments, **named)

            return call

        def __setattr__(self, name: str, value: Any) -> None:
            known(name)
            if names.get(name):
                raise AttributeError(f"{kind}.{name} is a method")
            super().__setattr__(name, value)

    Strict.__name__ = kind
    return Strict


def _fits(
    signature: str, given: tuple[Any, ...], named: Mapping[str, Any], played: Mapping[str, Any]
) -> bool:
    """Tell whether a call fits a signature such as "name: str, size: int = 0"."""
    wanted = re.findall(r"(\w+): ([^=,]+?)(?: = (\w+))?(?:, |$)", signature)
    if len(given) > len(wanted) or set(named) - {name for name, _, _ in wanted[len(given) :]}:
        return False
    values = {**dict(zip((name for name, _, _ in wanted), given, strict=False)), **named}
    for name, kind, default in wanted:
        if name not in values:
            if not default:
                return False
        elif values[name] is None:
            if default != "None":
                return False
        elif not isinstance(values[name], _TYPES.get(kind) or played.get(kind) or object):
            return False
    return True
