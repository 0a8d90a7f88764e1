"""Load a server at a steady rate, and say how long its answers take.

difftool serve ddpm-mnist --queue 16
python examples/serving/load.py http://127.0.0.1:8000 --rate 5 --requests 100 --steps 10,50

Requests come at random times that no answer delays, as they come from many people (a Poisson
process): a slow server gets no fewer. Each asks for one sample, with one of the numbers of steps.
The counts must agree with the server's own, so nobody else may use it meanwhile.
"""

import argparse
import asyncio
import json
import random
import re
import time
from collections import Counter
from typing import Any

import httpx2
import numpy as np

COUNT = re.compile(
    r'^difftool_requests_total\{model="[^"]*",outcome="(\w+)"\} (\S+)$', re.MULTILINE
)


async def load(url: str, rate: float, requests: int, steps: list[int], seed: int) -> dict[str, Any]:
    """Send the requests, `rate` a second; return what came of them."""
    chance = random.Random(seed)
    seconds: dict[int, list[float]] = {count: [] for count in steps}
    statuses: Counter[int] = Counter()
    # Without these, requests would wait here for others, and the load would hide its own delays.
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=url, timeout=None, limits=limits) as client:

        async def ask(count: int) -> None:
            begin = time.perf_counter()
            fields = {"sampler": "ddim", "num_inference_steps": count}
            answer = await client.post("/v1/samples", json=fields)
            statuses[answer.status_code] += 1
            if answer.status_code == 200:
                seconds[count].append(time.perf_counter() - begin)

        before = await counts(client)
        begin = due = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(requests):
                due += chance.expovariate(rate)
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(ask(chance.choice(steps)))
        whole = time.perf_counter() - begin
        after = await counts(client)
    told = {name: int(after[name] - before[name]) for name in after}
    return {
        "sent": requests,
        "ok": statuses[200],
        "refused": statuses[429],
        "other": requests - statuses[200] - statuses[429],
        "samples_per_second": round(statuses[200] / whole, 2),
        "seconds": {str(count): percentiles(found) for count, found in seconds.items()},
        "server": told,
        "counts_agree": sum(statuses.values()) == requests
        and (told["ok"], told["refused"]) == (statuses[200], statuses[429])
        and told["accepted"] == sum(told[end] for end in ("ok", "cancelled", "timeout", "failed")),
    }


async def counts(client: httpx2.AsyncClient) -> dict[str, float]:
    """Return the server's counts of requests by their ends, over all models."""
    found: Counter[str] = Counter()
    for outcome, count in COUNT.findall((await client.get("/metrics")).text):
        found[outcome] += float(count)
    return dict(found)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return the time that so many percent of the answers took at most."""
    if not seconds:
        return {}
    found = np.percentile(seconds, (50, 95, 99))
    return {f"p{p}": round(float(value), 3) for p, value in zip((50, 95, 99), found, strict=True)}


def main(words: list[str] | None = None) -> dict[str, Any]:
    """Print and return the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=5.0, help="requests a second")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--steps", default="10,50", help="numbers of steps, one of them for each")
    parser.add_argument("--seed", type=int, default=0, help="of the times")
    asked = parser.parse_args(words)
    steps = [int(count) for count in asked.steps.split(",")]
    found = asyncio.run(load(asked.url, asked.rate, asked.requests, steps, asked.seed))
    print(json.dumps(found, indent=2))
    return found


if __name__ == "__main__":
    main()
