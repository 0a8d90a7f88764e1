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


class Elsewhere:
    """Python code in a process that imports from another folder; it answers each line that it gets.

    `turn` sends one and waits for the answer, so it can take turns with what runs here.
    """

    def __init__(self, code: str, source: Path, *words: object) -> None:
        environment = {**os.environ, "PYTHONPATH": str(source.resolve())}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def __enter__(self) -> "Elsewhere":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def turn(self) -> None:
        """Have it do its work once; EOFError if it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("again\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise EOFError(f"a process ended with {self._process.wait()}")
