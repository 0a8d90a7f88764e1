"""Python in a process that nothing was imported in."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def python(
    *arguments: object,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
    fails: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run an interpreter, such as with "-c" and code; AssertionError if it fails and may not."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
    )
    assert fails or done.returncode == 0, done.stdout + done.stderr
    return done
