"""The process of `difftool`: of the installed script, `python -m` and `accelerate launch -m`.

A signal is heard from the first line on, and none disturbs the end.
"""

import os
import sys

from difftool.cli.signals import Signals


def run() -> None:
    """Run the command line of this process, and end the process with its exit code."""
    signals = Signals()
    signals.install()
    from difftool.cli.command import command

    code = command(sys.argv[1:], signals)
    signals.ignore()
    if signals.came:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> None:
    """End the process without what libraries do then: they were interrupted."""
    import gc
    from contextlib import suppress

    gc.collect()  # what was cut short may be cleaned up as it is freed
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # none, or full, or closed
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
