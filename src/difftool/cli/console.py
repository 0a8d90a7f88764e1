"""The output of commands: one report on stdout; progress and errors on stderr."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from difftool.cli.faults import in_options
from difftool.errors import DifftoolError

_LOGGER: Final = logging.getLogger("difftool")


def report(
    record: Mapping[str, Any], *, as_json: bool, sentence: str = "", aside: bool = False
) -> None:
    """Print a command's result, as one JSON document or for people.

    People get an outline. If there is a sentence that says what was done, they get that, and the
    outline before it with --verbose; `aside` is as in `say`.
    """
    if as_json:
        print(json.dumps(record, indent=2, allow_nan=False))
        return
    if not sentence:
        print("\n".join(map(_printable, outline(record))))
        return
    if is_verbose():
        say("\n".join(outline(record)), aside=aside)
    say(sentence, aside=aside)


def outline(record: Mapping[str, Any], indent: str = "") -> list[str]:
    """Return aligned lines of key and value.

    A mapping becomes a section; a mapping inside a section becomes one line.
    """
    width = max((len(str(key)) for key in record), default=0)
    lines = []
    for key, value in record.items():
        if isinstance(value, Mapping) and value and not indent:
            lines += [f"{key}:", *outline(value, "  ")]
        else:
            lines.append(f"{indent}{key:<{width}}  {_text(value)}")
    return lines


def print_error(error: DifftoolError, *, as_json: bool) -> None:
    """Print an error as one line and its hint as another; with `as_json` also as a document."""
    message, hint = (_one_line(in_options(text)) for text in (error.message, error.hint))
    with contextlib.suppress(OSError):  # nobody reads stderr
        print(f"error: {message}{f' [{error.code}]' if error.code else ''}", file=sys.stderr)
        if hint:
            print(f"hint: {hint}", file=sys.stderr)
    if as_json:
        with contextlib.suppress(BrokenPipeError):
            code = {"code": error.code} if error.code else {}
            record = {"error": message, "hint": hint, **code, "exit_code": error.exit_code}
            report(record, as_json=True)
            sys.stdout.flush()


def narrate(line: str) -> None:
    """Print a line for people on stderr, but with --quiet."""
    if not is_quiet():
        _tell(line)


def warn(lines: Iterable[str]) -> None:
    """Print warnings on stderr, but with --quiet."""
    for line in lines:
        narrate(f"warning: {_one_line(in_options(line))}")


def say(text: str, *, aside: bool = False) -> None:
    """Print what a command has done, but with --quiet; on stderr if it stands `aside` of data."""
    if not is_quiet():
        lines = "\n".join(map(_printable, text.splitlines()))
        print(lines, file=sys.stderr if aside else sys.stdout)


def counted(count: int, thing: str) -> str:
    """Return how many things there are, such as "1 step" and "2 steps"."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def is_verbose() -> bool:
    """Tell if --verbose is given."""
    return _LOGGER.level <= logging.DEBUG


class _Narrator(logging.Handler):
    """A log handler that prints records as lines that look like errors."""

    def emit(self, record: logging.LogRecord) -> None:
        _tell(f"{record.levelname.lower()}: {_one_line(record.getMessage())}")


@contextlib.contextmanager
def listening(*, verbose: bool, quiet: bool = False) -> Iterator[None]:
    """Print the library's warnings on stderr; all that it logs, or errors only.

    The logger's level also tells the functions of this module what to print.
    """
    handler = _Narrator()
    before = _LOGGER.level, _LOGGER.propagate
    _LOGGER.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
    _LOGGER.propagate = False  # handlers at the root logger would print it again
    _LOGGER.addHandler(handler)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.level, _LOGGER.propagate = before


@contextlib.contextmanager
def waiting(what: str, *, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show a spinner and `what` on a terminal, during work of unknown length.

    Yield a function to call with the work's phase, step and steps, which are shown then.
    """
    if quiet or not is_terminal():
        yield lambda phase, done, total: None
        return
    from rich.console import Console

    with Console(stderr=True).status(what) as status:
        yield lambda phase, done, total: status.update(f"{phase}: {done} of {total}")


@contextlib.contextmanager
def progress(*, quiet: bool, unit: str = "step") -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with the steps done and their total; a terminal shows a bar then."""
    if quiet or not is_terminal():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn(unit),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn(f"{{task.fields[speed]:.1f}} {unit}s/s"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
    )
    task, begin = bar.add_task("", speed=0.0), time.perf_counter()

    def tell(done: int, total: int) -> None:
        bar.start()  # does nothing from the second call on
        speed = done / (time.perf_counter() - begin)
        bar.update(task, completed=done, total=total, speed=speed)

    try:
        yield tell
    finally:
        bar.stop()


def is_terminal() -> bool:
    """Tell whether stderr is a terminal that may show progress: not with --quiet."""
    return sys.stderr.isatty() and not is_quiet()


def is_quiet() -> bool:
    """Tell if --quiet is given."""
    return _LOGGER.level >= logging.ERROR


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _text(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case Mapping():
            return ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "none"
        case list() | tuple():
            return "[" + ", ".join(map(_text, value)) + "]"
        case _:
            return str(value)


def _one_line(text: str) -> str:
    return _printable(" ".join(text.split()))


def _printable(line: str) -> str:
    """Escape a line's control characters: text from a file must not steer a terminal."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
