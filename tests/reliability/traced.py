"""What a process asks of the system, as strace sees it: sockets, and the files that it writes."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

_FILES: Final = (
    *("open", "openat", "creat", "mkdir", "mkdirat", "mknod", "mknodat"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("truncate", "unlink", "unlinkat", "rmdir"),
)
# One call of a process, up to its first path.
_CALL: Final = re.compile(r'\d+ +(\w+)\((?:(?:AT_FDCWD|-?\d+), )?(?:"([^"]*)")?(.*)')
_READS: Final = ("open", "openat")
_WRITING: Final = re.compile(r"O_(WRONLY|RDWR|CREAT)")
_HARMLESS: Final = ("/dev/null", "/dev/tty")
# What the libraries take for a machine that tests, on which they do not report.
_QUIET: Final = re.compile(r"CI|.*(_ACTIONS|_CI|_BUILD.*)|ORT_.*|HF_.*|TRAVIS|JENKINS.*|TF_BUILD")


@dataclass(frozen=True)
class Traced:
    """The calls that open or use sockets, and the paths that were made, written to or deleted."""

    sockets: list[str]
    written: set[Path]

    def outside(self, folder: Path) -> set[Path]:
        """What was written outside of a folder."""
        return {path for path in self.written if not path.is_relative_to(folder)}


def run(code: str, folder: Path) -> Traced:
    """Run Python code in `folder`, with a home and a folder for temporary files that are empty.

    Skips the test where there is no strace, but on CI.
    """
    strace = shutil.which("strace")
    if strace is None:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("needs strace")
    around = folder.parent / f"{folder.name}.around"
    homes = {name: str(around / name.lower()) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for home in homes.values():
        Path(home).mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not _QUIET.fullmatch(name)}
    trace, calls = around / "trace", ",".join(("%network", *_FILES))
    words = [strace, "-f", "-qq", "-s", "4096", "-e", f"trace={calls}"]
    command = [*words, "-o", str(trace), sys.executable, "-c", code]
    env = {**kept, **homes, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return _read(trace.read_text(), folder)


def _read(trace: str, folder: Path) -> Traced:
    sockets, written = [], set()
    for line in trace.splitlines():
        call = _CALL.match(line)
        if call is None:  # the end of a call whose begin was seen, or a signal
            continue
        name, path, rest = call.groups()
        if name not in _FILES:
            sockets.append(line)
        elif (name not in _READS or _WRITING.search(rest)) and path not in _HARMLESS:
            written.add(Path(os.path.normpath(folder / path)))
    return Traced(sockets, written)
