"""Running a command in a process of its own, and what that took."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


class Usage(NamedTuple):
    """Wall-clock seconds, and the peak of resident memory in bytes."""

    seconds: float
    peak: int


def run(command: Sequence[str | Path]) -> Usage:
    """Run a command to its end, without its output; CalledProcessError if it fails.

    A child's peak starts from this process's size, so the caller must import little before.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(map(str, command)))
    return Usage(seconds, usage.ru_maxrss * _MAXRSS_UNIT)
