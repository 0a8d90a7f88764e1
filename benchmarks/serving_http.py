"""Measure what a server does when it is asked for ten times what it can do, and when clients leave.

- the rate of samples under that load, against the rate of as many clients as it takes; a sample
  that is not done counts by its steps. The clients share the cores with the server. So requests of
  few steps lose more: of these there are ten times as many, and a refusal costs the same.
- how soon a refusal comes, and an answer of /health, both while it is saturated
- how soon the slots of a client that has left are free

`tests/reliability/test_serving_*.py` proves what does not depend on time.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from common.report import Figure, finish, parser
from common.timing import ratios

MOST, QUEUE = 8, 16
STEPS, FEW = 250, 10
TIMES = 10  # what it can do
GOODPUT, REFUSED, HEALTHY, FREED = 0.95, 50.0, 100.0, 250.0
PROBES = 50.0  # in a second
RUNNING = 'difftool_samples_running{model="ddpm-mnist"}'


def main() -> int:
    arguments = parser(__doc__, "out", "threads", rounds=10)
    arguments.add_argument("--seconds", type=float, default=5.0, help="of each load in a round")
    arguments.add_argument("--leaving", type=int, default=100, help="clients that leave")
    arguments.add_argument("--quick", action="store_true", help="proves that it runs")
    options = arguments.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.leaving = 1, 10.0, 3
    with serving(options.threads) as port:
        figures = asyncio.run(measure(port, options.rounds, options.seconds, options.leaving))
    setup = {"model": "ddpm-mnist", "batch": MOST, "queue": QUEUE, "steps": f"{STEPS} and {FEW}"}
    return finish("serving_http", figures, options, **setup)


@contextmanager
def serving(threads: int | None) -> Iterator[int]:
    """Serve in a process of its own; gives the port."""
    words = ["--max-batch", str(MOST), "--queue", str(QUEUE), "--port", "0"]
    chosen = [] if threads is None else ["--threads", str(threads)]
    line = [sys.executable, "-m", "difftool", "serve", "ddpm-mnist", *words, *chosen]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        port = int(json.loads(process.stderr.readline())["listening"].rpartition(":")[2])
        # A log that nobody reads fills its pipe, and then the server waits.
        reader = threading.Thread(target=deque, args=(process.stderr, 0), daemon=True)
        reader.start()
        yield port
    finally:
        process.kill()
        process.wait()


@dataclass
class Seen:
    """The seconds that clients saw until each refusal, and each answer of /health."""

    refused: list[float] = field(default_factory=list)
    healthy: list[float] = field(default_factory=list)


class Client:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> "Client":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def send(self, method: str, path: str, **fields: object) -> None:
        body = json.dumps(fields).encode() if fields else b""
        kind = "content-type: application/json\r\n" if fields else ""
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: served\r\n{kind}content-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        await self._writer.drain()

    async def ask(self, method: str, path: str, **fields: object) -> tuple[int, bytes]:
        try:
            return await self._ask(method, path, **fields)
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.__aexit__()  # the server closes connections that send nothing for seconds
            await self.__aenter__()
            return await self._ask(method, path, **fields)

    async def _ask(self, method: str, path: str, **fields: object) -> tuple[int, bytes]:
        await self.send(method, path, **fields)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.partition("content-length:")[2].partition("\r\n")[0])
        return int(head.split()[1]), await self._reader.readexactly(size)


async def measure(port: int, rounds: int, seconds: float, leaving: int) -> list[Figure]:
    """Measure all of it; the loads of a round follow each other."""
    await loaded(port, seconds, FEW, Seen())  # not counted
    rates: dict[int, list[tuple[float, float]]] = {STEPS: [], FEW: []}
    seen = {steps: Seen() for steps in rates}
    for _ in range(rounds):
        for steps, found in rates.items():
            found.append(await loaded(port, seconds, steps, seen[steps]))
    freed = [await leave(port) for _ in range(leaving)]
    figures = []
    for steps, found in rates.items():
        can, full = map(list, zip(*found, strict=True))
        where = "" if steps == STEPS else f", {steps} steps"
        limits = (GOODPUT, REFUSED, HEALTHY) if steps == STEPS else (None,) * 3
        figures += [
            Figure(f"samples a second{where}", can, unit="1/s"),
            Figure(f"samples a second, ten times the load{where}", full, unit="1/s"),
            Figure(
                f"goodput under ten times the load{where}", ratios(full, can), at_least=limits[0]
            ),
            p99(f"a refusal{where}", seen[steps].refused, limits[1]),
            p99(f"/health while saturated{where}", seen[steps].healthy, limits[2]),
        ]
    return [*figures, p99("slots free after a client left", freed, FREED)]


async def loaded(port: int, seconds: float, steps: int, seen: Seen) -> tuple[float, float]:
    """Give the samples a second under as much load as the server takes, and under ten times it."""

    async def under(clients: int, gap: Callable[[], float], seen: Seen) -> float:
        rate, *_ = await asyncio.gather(
            drawn(port, seconds, steps),
            crowd(port, seconds, steps, clients, gap, seen),
            probe(port, seconds, seen),
        )
        return rate

    can = await under(MOST + QUEUE, lambda: 0.0, Seen())
    return can, await under(TIMES * (MOST + QUEUE), seconds_between(TIMES * can), seen)


def p99(name: str, seconds: list[float], most: float | None) -> Figure:
    found = [float(np.percentile(seconds, 99)) * 1e3] if seconds else []
    return Figure(f"P99 of {name}", found, unit="ms", at_most=most, absent="there was none")


def seconds_between(rate: float) -> Callable[[], float]:
    """Give when a client's next request is due, so that all together send so many a second."""
    mean = TIMES * (MOST + QUEUE) / rate
    random = np.random.default_rng(0)
    return lambda: float(random.exponential(mean))


async def crowd(
    port: int, seconds: float, steps: int, clients: int, gap: Callable[[], float], seen: Seen
) -> None:
    """Have so many clients send requests, each at most one at a time."""
    end = time.monotonic() + seconds

    async def one(seed: int) -> None:
        async with Client(port) as client:
            while time.monotonic() < end:
                if (wait := gap()) > end - time.monotonic():
                    break
                await asyncio.sleep(wait)
                begin = time.monotonic()
                fields = {"sampler": "ddim", "num_inference_steps": steps, "seed": seed}
                status, _ = await client.ask("POST", "/v1/samples", **fields)
                if status == 429:
                    seen.refused.append(time.monotonic() - begin)

    await asyncio.gather(*map(one, range(clients)))


async def drawn(port: int, seconds: float, steps: int) -> float:
    """Give the rate of samples from now on, for so many seconds."""

    async def rows() -> int:
        _, text = await client.ask("GET", "/v1/status")
        return int(json.loads(text)["models"][0]["sample_steps"])

    async with Client(port) as client:
        begin, before = time.monotonic(), await rows()
        await asyncio.sleep(seconds)
        after = await rows()
        return (after - before) / steps / (time.monotonic() - begin)


async def probe(port: int, seconds: float, seen: Seen) -> None:
    """Ask for /health again and again."""
    end = time.monotonic() + seconds
    async with Client(port) as client:
        while time.monotonic() < end:
            begin = time.monotonic()
            await client.ask("GET", "/health")
            seen.healthy.append(time.monotonic() - begin)
            await asyncio.sleep(1 / PROBES)


async def leave(port: int) -> float:
    """Give the seconds from a client's leaving to the moment at which its slots are free."""
    async with Client(port) as other:

        async def running() -> float:
            _, text = await other.ask("GET", "/metrics")
            lines = text.decode().splitlines()
            return next(float(x.split()[-1]) for x in lines if x.startswith(RUNNING + " "))

        async with Client(port) as client:
            long = {"sampler": "ddim", "num_inference_steps": 1000, "n": MOST}
            await client.send("POST", "/v1/samples", **long)
            while not await running():
                pass
        begin = time.monotonic()
        while await running():
            pass
        return time.monotonic() - begin


if __name__ == "__main__":
    sys.exit(main())
