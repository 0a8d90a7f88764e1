"""A disk that loses what was not fsynced: what may be left of it after each file operation.

As far as POSIX promises: what is done to a folder lasts once that folder is fsynced, and until then
each change since the last fsync may be lost, whichever came first; a file's content lasts once the
file is fsynced, and until then it may end anywhere, and each sector may hold the new bytes or
zeros. A rename is done or lost, never half of it.
"""

import os
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

SECTOR: Final = 512


class File:
    """The content of a file, and whether it would survive power loss."""

    def __init__(self, content: bytes = b"", *, lasts: bool = False) -> None:
        self.content, self.lasts = content, lasts

    def write(self, data: bytes) -> None:
        self.content, self.lasts = self.content + data, False

    def sync(self) -> None:
        self.lasts = True

    def left(self, chance: random.Random | None) -> bytes:
        """Return all of it if it lasts; else nothing, or what chance leaves."""
        if self.lasts:
            return self.content
        if chance is None:
            return b""
        size = chance.randint(0, len(self.content))
        sectors = [
            self.content[at : at + SECTOR] if chance.random() < 0.5 else bytes(SECTOR)
            for at in range(0, size, SECTOR)
        ]
        return b"".join(sectors)[:size]


class Folder:
    """The names that last, and the changes since: each gives a node to some names, or takes it."""

    def __init__(self) -> None:
        self.lasting: Names = {}
        self.names: Names = {}
        self.changes: list[dict[str, Node | None]] = []

    def change(self, names: "dict[str, Node | None]") -> None:
        self.changes.append(names)
        _apply(self.names, names)

    def sync(self) -> None:
        self.lasting, self.changes = dict(self.names), []

    def left(self, chance: random.Random | None) -> "Names":
        """Return the lasting names, and what chance leaves of the changes."""
        names = dict(self.lasting)
        for change in self.changes:
            if chance is not None and chance.random() < 0.5:
                _apply(names, change)
        return names


Node = File | Folder
Names = dict[str, Node]
Left = dict[str, bytes | None]  # by path; a folder, which stands before what is in it, is None


class Disk:
    """The content of the folder `root`, empty at first, and the part of it that would last.

    `hook` is one of `file_layer`. It keeps the tree after each operation, with its name.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.tree = root, Folder()
        self._nodes: dict[int, Node] = {os.stat(root).st_ino: self.tree}
        self._kept: list[tuple[str, Folder]] = []

    def hook(
        self,
        name: str,
        operation: Callable[..., Any],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        result = operation(*arguments, **options)
        if name == "write":
            file = self._nodes[os.fstat(arguments[0]).st_ino]
            assert isinstance(file, File)
            file.write(bytes(arguments[1])[:result])
        elif name == "fsync":
            self._nodes[os.fstat(arguments[0]).st_ino].sync()
        nodes = {os.stat(self.root).st_ino: self.tree}
        changed = self._look(self.root, self.tree, nodes)
        assert changed <= 1, "a rename between folders is not in this model"
        self._nodes = nodes
        self._kept.append((name, deepcopy(self.tree)))
        return result

    def taken(self) -> list[tuple[str, Folder]]:
        """Return what was kept since the last call."""
        kept, self._kept = self._kept, []
        return kept

    def _look(self, path: Path, folder: Folder, nodes: dict[int, Node]) -> int:
        """Note which names were given or taken away, and put all nodes into `nodes` by their inode.

        Return in how many folders.
        """
        found, changed = dict[str, Node](), 0
        for entry in os.scandir(path):
            inode = entry.stat(follow_symlinks=False).st_ino
            node = self._nodes.get(inode) or (Folder() if entry.is_dir() else File())
            found[entry.name] = nodes[inode] = node
            if isinstance(node, Folder):
                changed += self._look(path / entry.name, node, nodes)
        change: dict[str, Node | None] = {name: None for name in folder.names.keys() - found.keys()}
        change |= {name: n for name, n in found.items() if folder.names.get(name) is not n}
        if change:
            folder.change(change)
        return changed + bool(change)


def remains(folder: Folder, chance: random.Random | None, above: str = "") -> Left:
    """Return what a loss of power leaves of `folder`: all that lasts, and what chance adds."""
    left: Left = {}
    for name, node in folder.left(chance).items():
        path = f"{above}{name}"
        if isinstance(node, Folder):
            left |= {path: None, **remains(node, chance, f"{path}/")}
        else:
            left[path] = node.left(chance)
    return left


def write(left: Left, copy: Path) -> None:
    """Make a folder of it."""
    copy.mkdir()
    for name, content in left.items():
        if content is None:
            (copy / name).mkdir()
        else:
            (copy / name).write_bytes(content)


def _apply(names: Names, change: dict[str, Node | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node
