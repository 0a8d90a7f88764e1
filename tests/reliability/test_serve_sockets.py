"""Wild bytes at a real server: it answers what it must, goes on, and keeps nothing."""

import json
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.reliability.criteria import Cases
from tests.reliability.forked import PATIENCE
from tests.reliability.wild_requests import EVIL, Wild, request, wild_requests

httpx = pytest.importorskip("httpx2")
pytest.importorskip("uvicorn")
if not Path("/proc/self/fd").is_dir():
    pytest.skip("counts a process's files in /proc", allow_module_level=True)

ROOT: Final = Path(__file__).parents[2]
COUNT: Final = {False: 60, True: 3000}
FEW: Final = 20  # cases between two looks at the server
STATUS: Final = re.compile(rb"\AHTTP/1\.1 (\d{3}) ")
RESET: Final = struct.pack("ii", 1, 0)  # linger for no time: the end is a reset
HEAD: Final = b"GET /health HTTP/1.1\r\nhost: small\r\n"


@dataclass
class Small:
    """A running server with small limits."""

    process: "subprocess.Popen[str]"
    port: int
    client: Any

    def connect(self) -> socket.socket:
        found = socket.create_connection(("127.0.0.1", self.port))
        found.settimeout(PATIENCE)
        return found

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        (line,) = [line for line in lines if line.startswith(name + "{")]
        return float(line.split()[-1])

    def files(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def require_free(self, files: int) -> None:
        """Wait until nothing is left of what was asked, and see that all can be asked again."""
        while self.metric("difftool_requests_pending") or self.metric("difftool_samples_running"):
            pass
        while self.files() > files:
            self.client.get("/health")
        assert self.client.get("/health").json() == {"status": "ok"}
        asked = {"num_inference_steps": 2, "stream": True}
        answer = self.client.post("/v1/images/generations", json=asked)  # a place for a stream
        assert answer.status_code == 200
        assert "image_generation.completed" in answer.text


@pytest.fixture(scope="module")
def small(tiny_bundle: Path) -> Iterator[Small]:
    line = [sys.executable, "-m", "tests.serve.small_server", str(tiny_bundle)]
    with subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["listening"]
        with httpx.Client(base_url=url, timeout=None) as client:
            client.get("/health")  # its connection stays, and is not one of those that are counted
            yield Small(process, int(url.rpartition(":")[2]), client)
        process.kill()


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the other side ends."""
    found = b""
    try:
        while data := connection.recv(1 << 16):
            found += data
    except ConnectionError:  # it had enough before it read all
        pass
    return found


def send(small: Small, wild: Wild) -> bytes:
    """Send it, and return what comes back."""
    with small.connect() as connection:
        try:
            for piece in wild.pieces:
                connection.sendall(piece)
            if wild.end == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            if wild.end == "half":
                connection.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass
        return received(connection) if wild.end in ("half", "wait") else b""


def require_decent(answer: bytes) -> None:
    """Fail if it is no HTTP, a server's error, or says what the client put into it."""
    if not answer:
        return
    status = STATUS.match(answer)
    assert status, answer[:200]
    assert int(status[1]) < 500, answer[:500]
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"\n" + EVIL not in head, head


@pytest.mark.criterion("S9")
def test_wild_bytes(small: Small, cases: Cases, note: Callable[[str], None], nightly: bool) -> None:
    small.require_free(1 << 20)
    files = small.files()
    seen: dict[str, int] = {}

    def check(batch: list[Wild]) -> None:
        for wild in batch:
            answer = send(small, wild)
            status = answer[9:12].decode("latin-1") or "nothing"
            seen[status] = seen.get(status, 0) + 1
            try:
                require_decent(answer)
            except AssertionError as error:
                raise AssertionError(f"{wild!r}: {error}") from None
        small.require_free(files)

    sent = wild_requests(COUNT[nightly])
    cases.run(check, [sent[at : at + FEW] for at in range(0, len(sent), FEW)])
    cases.record("cases", len(sent))
    note(f"S9, answers to {len(sent)} wild requests: {dict(sorted(seen.items()))}")
    assert small.process.poll() is None


@pytest.mark.seeded("S9")
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-request-id: a\r\n" + EVIL + b": 1\r\n\r\n",
        b"Traceback",
    ],
)
def test_what_is_not_decent_is_seen(answer: bytes) -> None:
    with pytest.raises(AssertionError):
        require_decent(answer)


def test_requests_in_one_piece_are_all_answered(small: Small) -> None:
    with small.connect() as connection:
        connection.sendall((HEAD + b"\r\n") * 4 + HEAD + b"connection: close\r\n\r\n")
        assert received(connection).count(b"HTTP/1.1 200 ") == 5


@pytest.mark.parametrize(
    ("begin", "status"),
    [
        (b"", b""),
        (HEAD, b""),
        ((HEAD + b"\r\n") + HEAD, b"200"),
        (request(size="16000"), b"408"),
        (request(path="/nowhere", size="100"), b"404"),
        (request(size="1000000"), b"413"),
    ],
    ids=["nothing", "a head", "a second head", "a body", "a body of no use", "too large a body"],
)
@pytest.mark.parametrize("drips", [False, True])
def test_who_is_slow_is_cut_off(small: Small, begin: bytes, status: bytes, drips: bool) -> None:
    """Each connection ends, though its client sends a byte whenever it likes."""
    files = small.files()
    with small.connect() as connection:
        connection.sendall(begin)
        connection.setblocking(not drips)
        found, over = b"", False
        while not over:
            try:
                if drips:
                    small.client.get("/health")  # others are answered meanwhile
                    connection.send(b"a")
                data = connection.recv(1 << 16)
                found, over = found + data, not data
            except BlockingIOError:
                pass
            except ConnectionError:
                over = True
        assert found[9:12] == status
    small.require_free(files)
