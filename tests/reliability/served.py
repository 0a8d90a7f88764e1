"""A server under load, in a process of its own: clients in threads, and what the process holds."""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.serve.served import IMAGES, KEY, SAMPLES, Served

HEADERS = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
LONG = 300  # steps of a client that leaves
OUTCOMES = ("accepted", "ok", "cancelled", "timeout", "failed", "refused")


@contextmanager
def reading(served: Served) -> Iterator[None]:
    """Read what the server logs, or else it would wait for us once the pipe is full."""
    assert served.process.stderr is not None
    reader = threading.Thread(target=lambda: list(served.process.stderr or ()), daemon=True)
    reader.start()
    yield


@dataclass(frozen=True)
class Held:
    """What a process holds: bytes of resident memory, threads and open files."""

    memory: int
    threads: int
    files: int


def held(served: Served) -> Held:
    """Look at a process in /proc."""
    folder = Path("/proc", str(served.process.pid))
    pages = int((folder / "statm").read_text().split()[1])
    counts = [len(list((folder / name).iterdir())) for name in ("task", "fd")]
    return Held(pages * 4096, *counts)


def counts(served: Served) -> dict[str, int]:
    """Return how the scheduler's requests have ended."""
    name = 'difftool_requests_total{{model="ddpm-mnist",outcome="{}"}}'
    return {outcome: int(served.metric(name.format(outcome))) for outcome in OUTCOMES}


@dataclass
class Load:
    """Clients that send `fields(i)` for i = 0, 1, 2 ..., each its next one when one has ended.

    When a request has ended, `again` of those that were refused meanwhile try again: that many more
    are asked for than are done, and refusals do not take all the time. `ended` counts statuses; 0
    is a client that left before its answer was there.
    """

    served: Served
    fields: Callable[[int], dict[str, Any]]
    answered: Callable[[int, dict[str, Any]], object] = lambda i, answer: None
    again: int = 9
    ended: Counter[int] = field(default_factory=Counter)

    def run(self, clients: int, until: Callable[[], bool]) -> None:
        """Send requests until the condition holds, and wait for the last answers."""
        with ThreadPoolExecutor(clients) as pool:
            for work in [pool.submit(self._client, until) for _ in range(clients)]:
                work.result()

    def settle(self) -> None:
        """Draw once more, so that the server has seen who left before."""
        for _ in range(3):
            answer = self.served.client.post(SAMPLES, json=self.fields(0))
            self.ended[answer.status_code] += 1

    def _client(self, until: Callable[[], bool]) -> None:
        with closing(HTTPConnection(self.served.url.removeprefix("http://"))) as connection:
            while not until():
                self._one(connection, until)
            with self._news:
                self._news.notify_all()

    def _one(self, connection: HTTPConnection, until: Callable[[], bool]) -> None:
        i, before = next(self._numbers), self._done
        status = self._ask(connection, i, self.fields(i))
        with self._news:
            self.ended[status] += 1
            if status == 429:
                self._news.wait_for(lambda: self._done > before or until())
            else:
                self._done += 1
                self._news.notify(self.again)

    def _ask(self, connection: HTTPConnection, i: int, fields: dict[str, Any]) -> int:
        path, more = (IMAGES, {"stream": True}) if i % 4 < 2 else (SAMPLES, {})
        leaves = {"num_inference_steps": LONG} if i % 4 == 1 else {}
        connection.request("POST", path, json.dumps({**fields, **more, **leaves}), HEADERS)
        answer = connection.getresponse()
        if answer.status == 200 and leaves:  # with the status, and so before it has an image
            answer.close()
            connection.close()
            return 0
        content = answer.read()
        if answer.status == 200 and i % 4 == 0:
            assert b"image_generation.completed" in content
        elif answer.status == 200:
            self.answered(i, json.loads(content))
        return answer.status

    def __post_init__(self) -> None:
        self._numbers = itertools.count()
        self._news, self._done = threading.Condition(), 0
