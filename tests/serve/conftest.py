"""Models that are served, on the gate of a backend that waits for the test."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

import difftool
from difftool.runtime import Model

pytest.importorskip("starlette")
httpx = pytest.importorskip("httpx2")

from difftool.serve import Application, ServeSettings  # noqa: E402


@dataclass
class Gate:
    """A backend whose steps each wait until they may run; `before` may also raise."""

    backend: Any
    may: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    waits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    before: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def slots(self, count: int, most: int) -> "GatedSlots":
        return GatedSlots(self.backend.slots(count, most), self)

    def open(self) -> None:
        """Let all steps run from now on."""
        self.may.release(1 << 20)


@dataclass
class GatedSlots:
    slots: Any
    gate: Gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self.slots, name)

    def advance(self, places: Sequence[int]) -> None:
        self.gate.waits.release()
        self.gate.may.acquire()
        self.gate.before()
        self.slots.advance(places)


@pytest.fixture(scope="session")
def digits() -> Model:
    return difftool.load("ddpm-mnist", max_batch=4, threads=1)


@pytest.fixture
def gate() -> Iterator[Gate]:
    found = Gate(difftool.load("ddpm-mnist", threads=1).backend)
    yield found
    found.open()


@pytest.fixture
def gated(gate: Gate, digits: Model) -> Model:
    """As `digits`, but its steps wait at the gate."""
    return Model(digits.bundle, gate, max_batch=4)


@dataclass
class Client:
    """Asks an application in the same process, each time in an event loop of its own."""

    application: Any

    def __call__(self, method: str, path: str, **asked: Any) -> Any:
        return run(self.ask(method, path, **asked))

    async def ask(self, method: str, path: str, **asked: Any) -> Any:
        # Another task goes on meanwhile, as it would while a network is waited for.
        await asyncio.to_thread(int)
        transport = httpx.ASGITransport(self.application)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://served", timeout=None
        ) as client:
            return await client.request(method, path, **asked)

    def post(self, path: str, **fields: Any) -> Any:
        return self("POST", path, json=fields)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def client_of(settings: ServeSettings | None = None, **models: Model) -> Client:
    return Client(Application(models, settings))


def error_of(answer: Any) -> dict[str, Any]:
    """Return the error of an answer, which has all that an error must have."""
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "hint", "param", "request_id"}
    assert error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]
    return dict(error)


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a stream with their data."""
    found = []
    for block in text.replace("\r\n", "\n").strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines["event"], json.loads(lines["data"])))
    return found


async def wait_at(gate: Gate) -> None:
    """Wait until a step stands at the gate."""
    await asyncio.to_thread(gate.waits.acquire)
