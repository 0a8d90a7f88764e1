"""The command line. Each command has one file: it parses, calls the library and prints."""

import sys
from collections.abc import Sequence

from difftool.cli.signals import Signals

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `argv`, by default `sys.argv`. Return the exit code; raise nothing.

    An error becomes a line "error: ..." and a line "hint: ..." on stderr; with `--json` it is also
    printed as a document on stdout. Three flags may stand anywhere on the line: `--debug` prints a
    traceback too, `--verbose` all that the library logs, and `--quiet` not even its warnings.
    """
    signals = Signals()
    signals.install()
    try:
        # Imported here, because this takes a while and signals should be handled meanwhile.
        from difftool.cli.command import command

        return command(sys.argv[1:] if argv is None else argv, signals)
    finally:
        signals.restore()
