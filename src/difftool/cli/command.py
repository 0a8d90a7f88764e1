"""The way of one command line from its words to its exit code."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final

from difftool.cli.console import listening, print_error
from difftool.cli.faults import CLOSED_PIPE, as_fault
from difftool.cli.signals import Signals
from difftool.errors import UsageError

FLAGS: Final = ("--debug", "--verbose", "--quiet")


def command(words: Sequence[str], signals: Signals) -> int:
    """Run one command. Return the exit code; raise nothing.

    A signal interrupts the command. Once the outcome is known, signals are only remembered.
    """
    arguments, ours = _without_flags(words)
    debug, verbose, quiet = (flag in ours for flag in FLAGS)
    try:
        signals.begin()
        if verbose and quiet:
            raise UsageError("--verbose and --quiet are both given", "give one of them")
        with listening(verbose=verbose, quiet=quiet):
            code = _run(arguments or ["--help"])
            sys.stdout.flush()  # while an error can still be reported
        signals.raised = False
        return code
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        signals.raised = False
        # The interpreter flushes stdout once more at its end, which now cannot fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except (Exception, KeyboardInterrupt) as error:
        signals.raised = False
        if debug:
            traceback.print_exception(error)
        fault = as_fault(KeyboardInterrupt() if signals.came else error, arguments)
        print_error(fault, as_json="--json" in arguments)
        return fault.exit_code


def _without_flags(words: Sequence[str]) -> tuple[list[str], set[str]]:
    """Return the words without the flags that may stand anywhere before "--", and those flags."""
    end = words.index("--") if "--" in words else len(words)
    before, after = words[:end], words[end:]
    return [word for word in before if word not in FLAGS] + [*after], {*before} & {*FLAGS}


def _run(arguments: list[str]) -> int:
    import typer
    from typer.main import get_command

    from difftool.cli.app import app

    # Typer's own main() would print errors in its own way and swallow interrupts and closed pipes.
    group = get_command(app)
    try:
        if "_DIFFTOOL_COMPLETE" in os.environ:  # a shell asks for completions, and Typer answers
            group.main(arguments, prog_name="difftool")
        with group.make_context("difftool", arguments) as context:
            group.invoke(context)
        return 0
    except typer.Exit as end:
        return end.exit_code
    except SystemExit as end:
        return int(end.code or 0)
