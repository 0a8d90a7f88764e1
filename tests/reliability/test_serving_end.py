"""S4 and S5: what was admitted ends well after SIGTERM; a busy server says that it lives."""
# ruff: noqa: F811, since fixtures are imported

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from difftool.runtime import Model, SchedulerSettings
from difftool.serve import Application, ServeSettings
from difftool.serve.asked import AskedSamples
from tests.serve.conftest import (  # noqa: F401
    Gate,
    client_of,
    digits,
    gate,
    gated,
    run,
    wait_at,
)
from tests.serve.served import IMAGES, SAMPLES, serving

PENDING = 'difftool_requests_pending{model="ddpm-mnist"}'
RUNNING = 'difftool_samples_running{model="ddpm-mnist"}'
IMPATIENT = """
from difftool.serve.service import Service
async def drain(self, timeout):
    self.draining = True
    self.cancel_all()
Service.drain = drain
"""


def ended(folder: Path, requests: int, defect: str = "") -> None:
    """Send SIGTERM while so many requests run or wait; demand that each of them is answered."""
    patient = ("--drain-timeout", "500", "--max-batch", "4", "--queue", str(requests))
    with (
        serving(folder, *patient, defect=defect) as served,
        ThreadPoolExecutor(requests) as pool,
    ):

        def ask(i: int) -> tuple[int, str]:
            fields = {"sampler": "ddim", "num_inference_steps": 40 + i, "seed": i}
            if i % 2:
                answer = served.client.post(SAMPLES, json=fields)
                return answer.status_code, answer.text
            with served.client.stream("POST", IMAGES, json={**fields, "stream": True}) as answer:
                return answer.status_code, answer.read().decode()

        asked = [pool.submit(ask, i) for i in range(requests)]
        served.until(PENDING, requests)
        assert served.metric(RUNNING) > 0
        code, lines = served.end(signal.SIGTERM)
        answers = [answer.result() for answer in asked]
    whole = [
        status == 200 and ('"samples"' in text or ".completed" in text) for status, text in answers
    ]
    assert all(whole), f"{whole.count(False)} of {requests} that were admitted have no samples"
    assert code == 0
    drawn = [line for line in lines if line.get("method") == "POST"]
    assert [line["status"] for line in drawn] == [200] * requests


@pytest.mark.criterion("S4")
@pytest.mark.timeout(3600)
def test_sigterm_under_load(tmp_path: Path, nightly: bool, note: Callable[[str], None]) -> None:
    times, requests = (20, 30) if nightly else (1, 10)
    for _ in range(times):
        ended(tmp_path, requests)
    note(f"S4: {times * requests} requests that were admitted before SIGTERM had their samples")


@pytest.mark.seeded("S4")
def test_a_drain_that_cancels_is_seen(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="that were admitted have no samples"):
        ended(tmp_path, 10, IMPATIENT)


PROBES = ("/health", "/ready", "/metrics", "/v1/models")


def probed(gate: Gate, gated: Model, rounds: int) -> int:
    """Demand answers while a step stands still and the queue is full; return how many came.

    Nothing can move here until the gate is opened. So an answer that waits for the scheduler would
    never come, and one that wants a place in the queue would be a refusal.
    """
    gated.scheduler(SchedulerSettings(queue=1, slots=4))
    client = client_of(ServeSettings(streams=1), digits=gated)
    short = {"num_inference_steps": 2}

    async def saturated() -> list[int]:
        running = asyncio.create_task(client.ask("POST", SAMPLES, json={"n": 4, **short}))
        await wait_at(gate)
        waiting = asyncio.create_task(client.ask("POST", SAMPLES, json=short))
        while gated.scheduler().counts.accepted < 2:
            await client.ask("GET", "/metrics")
        statuses = []
        for _ in range(rounds):
            refused = await client.ask("POST", SAMPLES, json=short)
            assert refused.status_code == 429, "it was not saturated"
            for path in PROBES:
                statuses.append((await client.ask("GET", path)).status_code)
            gone = await client.ask("DELETE", "/v1/requests/none")
            statuses.append(200 if gone.status_code == 404 else gone.status_code)
        gate.open()
        assert (await running).status_code == (await waiting).status_code == 200
        return statuses

    statuses = run(saturated())
    assert set(statuses) == {200}, f"answers of a busy server: {set(statuses)}"
    return len(statuses)


@pytest.mark.criterion("S5")
def test_a_busy_server_says_that_it_lives(
    gate: Gate,
    gated: Model,
    nightly: bool,
    note: Callable[[str], None],
) -> None:
    count = probed(gate, gated, 400 if nightly else 10)
    note(f"S5: {count} answers of a server whose queue was full and whose step stood still")


@pytest.mark.seeded("S5")
def test_probes_that_queue_are_seen(
    gate: Gate,
    gated: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def queued(self: Application, *connection: Any) -> None:
        async with self.service.drawing(AskedSamples(num_inference_steps=2), "a probe"):
            await self._models(*connection)

    monkeypatch.setattr(Application, "_health", queued)
    with pytest.raises(AssertionError, match="answers of a busy server"):
        probed(gate, gated, 2)
