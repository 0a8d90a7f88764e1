"""A server in a process of its own, as the command starts it."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx

KEY = "a-key-for-the-tests"
IMAGES, SAMPLES = "/v1/images/generations", "/v1/samples"
# The command, in a process in which something was broken before.
_BROKEN = "{defect}\nimport sys\nfrom difftool.cli import main\nsys.exit(main(sys.argv[1:]))"


class Served:
    """A running server."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, client: Any) -> None:
        self.process, self.url, self.client = process, url, client

    def metric(self, name: str) -> float:
        text = self.client.get("/metrics").text
        (line,) = [line for line in text.splitlines() if line.startswith(name + " ")]
        return float(line.split()[-1])

    def until(self, name: str, value: float) -> None:
        while self.metric(name) != value:
            pass

    def leave(self, path: str, **fields: Any) -> None:
        """Send a request, wait until it draws, and cut the connection."""
        body = json.dumps(fields).encode()
        port = int(self.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = (
                f"POST {path} HTTP/1.1\r\nhost: served\r\nauthorization: Bearer {KEY}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body)
            self.until('difftool_requests_pending{model="ddpm-mnist"}', 1)

    def end(self, number: int) -> tuple[int, list[dict[str, Any]]]:
        """Send a signal; return the exit code, and the lines that the process still wrote."""
        self.process.send_signal(number)
        assert self.process.stderr is not None
        lines = [json.loads(line) for line in self.process.stderr]
        return self.process.wait(), lines


@contextmanager
def serving(
    folder: Path, *words: str, model: str = "ddpm-mnist", defect: str = ""
) -> Iterator[Served]:
    """Serve a model, with the key in a folder; `defect` is Python that runs before the command."""
    keys = folder / "keys"
    keys.write_text(KEY)
    begin = ["-c", _BROKEN.format(defect=defect)] if defect else ["-m", "difftool"]
    line = ["serve", model, "--port", "0", "--threads", "1", "--api-key-file", str(keys)]
    process = subprocess.Popen(
        [sys.executable, *begin, *line, *words], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        url = json.loads(process.stderr.readline())["listening"]
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=url, headers=headers, timeout=None) as client:
            yield Served(process, url, client)
    finally:
        process.kill()
        process.communicate()
