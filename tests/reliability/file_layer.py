"""Every operation on files, shown to a hook that may let it happen, or die, or raise instead."""

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from difftool import files

Operation = Callable[..., Any]
Hook = Callable[[str, Operation, tuple[Any, ...], dict[str, Any]], Any]

# What changes something, or makes it last; what only reads is of no interest but for opening.
OPERATIONS = ("close", "fsync", "mkdir", "open", "rename", "replace", "rmdir", "unlink", "write")
EXCHANGE = "exchange"
_GIVING_UP = ("close", "rmdir", "unlink")
_OTHERS = {"os.chmod", "os.link", "os.symlink", "os.truncate", "shutil.copyfile", "shutil.move"}


@contextlib.contextmanager
def watched(hook: Hook) -> Iterator[None]:
    """In the block `hook(name, operation, arguments, options)` stands for operations of `os`."""
    kept = {name: getattr(os, name) for name in OPERATIONS}
    at_once, busy = files.exchanged_at_once, list[bool]()
    for name, operation in kept.items():
        setattr(os, name, _shown(hook, busy, name, operation))
    files.exchanged_at_once = _shown(hook, busy, EXCHANGE, at_once)
    try:
        yield
    finally:
        files.exchanged_at_once = at_once
        for name, operation in kept.items():
            setattr(os, name, operation)


def before(act: Callable[[int, str, Operation, tuple[Any, ...]], object]) -> Hook:
    """Lets every operation happen after `act`, told its number, from 1 on, and what it is."""
    count = itertools.count(1)

    def hook(
        name: str, operation: Operation, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        act(next(count), name, operation, arguments)
        return operation(*arguments, **options)

    return hook


def dying(at: int, share: float) -> Hook:
    """Ends the process at operation `at`, from 1 on; of a write, a `share` of it happens first."""

    def end(number: int, name: str, operation: Operation, arguments: tuple[Any, ...]) -> None:
        if number == at:
            if name == "write":
                descriptor, data = arguments
                operation(descriptor, data[: int(share * len(data))])
            os._exit(_code(name))

    return before(end)


def operation_name(code: int) -> str | None:
    """Return at which operation a process with this exit code died; None if it ended well."""
    return None if code == 0 else (*OPERATIONS, EXCHANGE)[code - 1]


def raising(at: int, number: int, failures: list[str]) -> Hook:
    """Fails with errno `number` from operation `at` on, and tells `failures`.

    What reads, and what gives something up, does not fail: a full disk lets it be.
    """
    done = 0

    def fail(_: int, name: str, operation: Operation, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        harmless = name in _GIVING_UP or (name == "open" and not arguments[1] & os.O_CREAT)
        done += not harmless
        if done >= at and not harmless:
            failures.append(name)
            raise OSError(number, os.strerror(number))

    return before(fail)


def unseen(folder: Path, action: Callable[[], object]) -> list[str]:
    """Return what `action` changed below `folder` past `watched`; the interpreter itself tells.

    It cannot be taken back: for a process of its own.
    """
    seen: list[str] = []
    escaped: list[str] = []

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, _ = arguments
            if isinstance(mode, str) and set(mode) & set("wax+") and str(folder) in str(path):
                escaped.append(f"open {path} {mode}")
        elif event in _OTHERS and str(folder) in str(arguments):
            escaped.append(event)

    sys.addaudithook(audit)
    with watched(before(lambda _, name, *rest: seen.append(name))):
        action()
    return escaped if {"write", "fsync", "mkdir"} <= set(seen) else ["everything"]


def _shown(hook: Hook, busy: list[bool], name: str, operation: Operation) -> Operation:
    def show(*arguments: Any, **options: Any) -> Any:
        if busy:  # the hook's own
            return operation(*arguments, **options)
        busy.append(True)
        try:
            return hook(name, operation, arguments, options)
        finally:
            busy.pop()

    return show


def _code(name: str) -> int:
    return (*OPERATIONS, EXCHANGE).index(name) + 1
