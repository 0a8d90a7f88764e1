"""A process with everything imported, which forks a child for each command line: a real run each.

The child runs the command line's own entry in a folder, with its own stdin, stdout and stderr; its
exit status and peak memory are those that the system says. Its work is told in calls, since time
would be another one on a machine that has much to do.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.reliability.moments import Calls

RUNTIME = (
    "difftool.cli.app",
    "difftool.cli.output",
    "difftool.cli.inputs",
    "difftool.runtime.model",
    "difftool.runtime.backends.onnxruntime_cpu",
    "difftool.runtime.cuda.cuda_device",
    "onnxruntime",
    "typer.main",
)
ROOT = Path(__file__).parents[2]
_LONGEST = 60  # seconds of its own work, after which the system ends a child
_CRASHED = 70  # the entry raised, which it never should


@dataclass(frozen=True)
class Ran:
    """How a command line ended: `code` is its exit status, or -N where signal N ended it.

    `calls` are those of Python functions, 0 if it did not come to its end.
    """

    code: int
    out: str
    err: str
    peak: int  # KiB
    calls: int

    @property
    def error_code(self) -> str:
        """The stable word in the first line of stderr, "" where there is none."""
        first = self.err.partition("\n")[0]
        return first[first.rindex("[") + 1 : -1] if first.endswith("]") else ""


class Warm:
    """Runs command lines; `imports` are loaded once, before the first."""

    def __init__(self, imports: Iterable[str] = RUNTIME) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, *imports],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __call__(self, arguments: Sequence[object], folder: Path, *, setup: str = "") -> Ran:
        """Run one, in a folder; `setup` is code that the child runs first, to seed a defect."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request = {"arguments": [*map(str, arguments)], "folder": str(folder), "setup": setup}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return Ran(**json.loads(self._server.stdout.readline()))

    def __enter__(self) -> "Warm":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        if error is not None:
            self._server.kill()  # it may hang
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()


def one_error(ran: Ran, codes: Iterable[int]) -> None:
    """AssertionError unless a run ended with one of the codes, and one line and a hint."""
    assert "Traceback" not in ran.err, ran.err
    assert ran.code in codes, f"exit code {ran.code}: {ran.err}{ran.out[:200]}"
    lines = ran.err.splitlines()
    assert lines, "nothing on stderr"
    assert lines[0].startswith("error: "), ran.err
    assert all(line.startswith("hint: ") for line in lines[1:]), ran.err
    assert len(lines) <= 2, ran.err


def _serve(imports: Sequence[str]) -> None:
    for name in imports:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that children do not write to pages they share
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(_run(json.loads(line))) + "\n")
        answers.flush()


def _run(request: dict[str, Any]) -> dict[str, object]:
    names = ("out", "err", "calls")
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(tempfile.TemporaryFile()) for name in names}
        child = os.fork()
        if not child:
            _child(request, *(file.fileno() for file in files.values()))
        _, status, used = os.wait4(child, 0)
        texts = {}
        for name, file in files.items():
            file.seek(0)
            texts[name] = file.read().decode(errors="replace")
    code, calls = os.waitstatus_to_exitcode(status), int(texts.pop("calls") or 0)
    return {"code": code, "peak": used.ru_maxrss, "calls": calls, **texts}


def _child(request: dict[str, Any], out: int, err: int, calls: int) -> None:
    code = _CRASHED
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (_LONGEST, _LONGEST))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(request["folder"])
        exec(request["setup"], {})
        from difftool.cli import main

        with Calls() as made:
            code = main(request["arguments"])
        os.write(calls, str(made.count).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1:])
