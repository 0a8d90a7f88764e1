"""The command line. A command parses, calls the library and prints; one file each."""

import sys
import traceback
from collections.abc import Sequence

from difftool.cli.console import flush, listening, print_error, silence_stdout
from difftool.cli.faults import CLOSED_PIPE, fault_of
from difftool.cli.signals import Signals

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, `sys.argv` by default; returns the exit code and raises nothing.

    Whatever goes wrong becomes a line "error: ..." and a line "hint: ..." on stderr; with `--json`
    also a document on stdout. A traceback appears with `--debug` only, and what the library logs
    below a warning with `--verbose` only; both may stand anywhere.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug, verbose = "--debug" in arguments, "--verbose" in arguments
    arguments = [word for word in arguments if word not in ("--debug", "--verbose")]
    signals = Signals()
    try:
        with signals, listening(verbose=verbose):
            code = _run(arguments or ["--help"])
            flush()
        return code
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        silence_stdout()
        return CLOSED_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exception(error)
        fault = fault_of(KeyboardInterrupt() if signals.came else error, arguments)
        print_error(fault, as_json="--json" in arguments)
        return fault.exit_code


def _run(arguments: list[str]) -> int:
    import typer
    from typer.main import get_command

    from difftool.cli.app import app

    # Typer's own main() would print errors in its own way and swallow interrupts and closed pipes.
    command = get_command(app)
    try:
        with command.make_context("difftool", arguments) as context:
            command.invoke(context)
        return 0
    except typer.Exit as end:
        return end.exit_code
