"""Triton's own server on loopback, as `make test` installs it, on a model repository."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.reliability.forked import PATIENCE

HOME: Final = Path(sys.prefix, "triton")
_SERVER: Final = HOME / "pytriton" / "tritonserver"
_VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_STUB: Final = _SERVER / "python_backend_stubs" / _VERSION / "triton_python_backend_stub"
_READY: Final = "Started Metrics Service"  # after those for HTTP and gRPC
_PORTS: Final = range(20000, 30000)  # below those that systems give out by themselves


@dataclass
class Triton:
    """A running server, and the lines that it and its models have printed."""

    process: "subprocess.Popen[str]"
    ports: Sequence[int]
    lines: list[str]

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.ports[1]}"

    def metric(self, name: str, model: str, **labels: str) -> float:
        """Return a metric of ours, of a model's only instance."""
        url = f"http://127.0.0.1:{self.ports[2]}/metrics"
        with urllib.request.urlopen(url, timeout=None) as answer:
            text = answer.read().decode()
        wanted = {"model": model, **labels}
        (line,) = [
            line
            for line in text.splitlines()
            if line.startswith(f"difftool_{name}{{")
            and all(f'{key}="{value}"' in line for key, value in wanted.items())
        ]
        return float(line.split()[-1])

    def until(self, value: float, name: str, model: str, **labels: str) -> None:
        """Wait until a metric has a value; the server renews them while its models run."""
        while self.metric(name, model, **labels) != value:
            assert self.process.poll() is None, self.lines

    def end(self) -> int:
        """Ask the server to end; return its exit code."""
        self.process.terminate()
        return self.process.wait()


def require_server() -> None:
    """Skip a test if there is no server; CI has one."""
    if not _STUB.exists():
        text = f"no Triton server for this Python in {HOME}: `make test` installs it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(text)


@contextmanager
def running(repository: Path, models: Sequence[str], folder: Path) -> Iterator[Triton]:
    """Serve models of a repository. What the server needs of its own goes into `folder`."""
    python = folder / "backends" / "python"
    shutil.copytree(_SERVER / "backends" / "python", python)
    shutil.copy(_STUB, python)
    libraries = [str(HOME / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    # The backend runs the Python that it finds first.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    ports = _free_ports()
    kinds = ("http", "grpc", "metrics")
    line = [
        str(_SERVER / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={python.parent}",
        "--disable-auto-complete-config",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        *(f"--{kind}-port={port}" for kind, port in zip(kinds, ports, strict=True)),
        *(f"--{kind}-address=127.0.0.1" for kind in kinds),
    ]
    process = subprocess.Popen(
        line,
        env=env,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    reader: threading.Thread | None = None
    try:
        assert process.stdout is not None
        for each in process.stdout:
            lines.append(each)
            if _READY in each:
                break
        assert _READY in lines[-1], "".join(lines)
        # What it prints later must be read, or it would wait for that.
        reader = threading.Thread(target=lines.extend, args=(process.stdout,))
        reader.start()
        for port in ports:  # it says that it listens a moment before it does
            while not _listens(port):
                assert process.poll() is None, "".join(lines)
        yield Triton(process, ports, lines)
    finally:
        process.terminate()  # so that it removes its shared memory
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the processes of its models
        if reader is not None:
            reader.join()
        process.communicate()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _free_ports() -> list[int]:
    found: list[int] = []
    while len(found) < 3:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
