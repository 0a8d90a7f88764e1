"""Doors that open at first use: a package's public names, imported only when one is asked for.

`import difftool` and `difftool --help` then cost nothing, and a room whose library is missing can
still be listed. A type checker reads the same names from an `if TYPE_CHECKING` block.
"""

from importlib import import_module

# What typing would give; its import takes longer than everything else at start.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def lazily(package: str, homes: "Mapping[str, str]") -> "Callable[[str], Any]":
    """Return the `__getattr__` of a package (PEP 562): `homes` says which module has a name.

    A name whose home is the module of that same name is the module itself.
    """

    def found(name: str) -> "Any":
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(home)
        return module if home.endswith(f".{name}") else getattr(module, name)

    return found
