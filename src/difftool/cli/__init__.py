"""The command line. A command parses, calls the library and prints; one file each."""

import sys
from collections.abc import Sequence

from difftool.cli.signals import Signals

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, `sys.argv` by default; returns the exit code and raises nothing.

    Whatever goes wrong becomes a line "error: ..." and a line "hint: ..." on stderr; with `--json`
    also a document on stdout. A traceback appears with `--debug` only, and what the library logs
    below a warning with `--verbose` only; both may stand anywhere.
    """
    signals = Signals()
    signals.install()
    try:
        from difftool.cli.command import (
            command,
        )  # here, so that signals are heard before it is there

        return command(sys.argv[1:] if argv is None else argv, signals)
    finally:
        signals.restore()
