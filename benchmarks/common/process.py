"""Run a command in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


def run(command: Sequence[str | Path]) -> int:
    """Run a command to its end, without its output, and give its peak of resident memory in bytes.

    CalledProcessError if it fails. A child's peak starts from this process's size, so the caller
    must import little before.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(map(str, command)))
    return usage.ru_maxrss * _MAXRSS_UNIT
