"""The process of a `difftool` command: started by its script, `python -m` or `accelerate launch`.

Signals are heard from the first line on. When the exit code is known, they are ignored.
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
    """End the process, and skip the clean-up of libraries, which were interrupted half-way."""
    import gc
    from contextlib import suppress

    gc.collect()  # objects that were cut short may clean up as they are freed
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # it is missing, full or closed
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
