"""S3 and S7: clients that leave free their slots, and slow readers hold nobody up.

The application runs in this process, on a backend whose every step waits for the test. So a client
leaves at exactly the step that was drawn for it.
"""
# ruff: noqa: F811, since fixtures are imported

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from difftool.diffusion.samplers import ddim
from difftool.runtime import Model, SchedulerSettings
from difftool.runtime.scheduling import ticket as tickets
from difftool.serve import ServeSettings, service
from tests.reliability.criteria import Cases
from tests.serve.conftest import (  # noqa: F401
    Gate,
    client_of,
    digits,
    gate,
    gated,
    run,
    wait_at,
)
from tests.serve.test_cancels import Leaver

IMAGES, SAMPLES = "/v1/images/generations", "/v1/samples"
STEPS = 8
STAYS = 2 * STEPS + 2  # of the client that stays
LOOKS = 50  # at the server, in which a client that has left is seen
READERS = 100
JSON: tuple[str, dict[str, Any]] = SAMPLES, {}
WAYS = (JSON, (IMAGES, {"stream": True}), (IMAGES, {"stream": True, "partial_images": 3}))


@dataclass(frozen=True)
class Leaving:
    """A client that leaves after a step, one of those that are drawn for; another one stays."""

    path: str
    more: dict[str, Any]
    step: int
    n: int
    seed: int


def leavings(count: int) -> Iterator[Leaving]:
    random = np.random.default_rng(0)
    for i in range(count):
        path, more = WAYS[i % len(WAYS)]
        step, n, seed = (int(random.integers(*ends)) for ends in ((0, STEPS), (1, 4), (1 << 30,)))
        yield Leaving(path, more, step, n, seed)


def slot_is_free(gate: Gate, gated: Model) -> Callable[[Leaving], None]:
    """Return the check of S3. One sample of a client that stays is there in every step."""
    client, running = client_of(digits=gated), gated.scheduler()
    alone = Model(gated.bundle, gate.backend, max_batch=1)
    fields = {"sampler": "ddim", "num_inference_steps": STEPS}

    async def leave(case: Leaving) -> Any:
        kept = {"seed": case.seed, "num_inference_steps": STAYS}
        stays = asyncio.create_task(client.ask("POST", SAMPLES, json={**fields, **kept}))
        await wait_at(gate)
        leaver = Leaver(client.application, case.path, n=case.n, **fields, **case.more)
        accepted = running.counts.accepted
        while running.counts.accepted == accepted:
            await client.ask("GET", "/health")
        while running.occupied != 1 + case.n:
            await one_step()
        for _ in range(case.step):
            await one_step()
        leaver.leaving.set()
        for _ in range(LOOKS):
            if leaver.over.done():
                break
            await client.ask("GET", "/health")
        seen = leaver.over.done()
        await one_step()
        left, occupied = running.counts.cancelled, running.occupied
        while not (stays.done() and leaver.over.done()):
            gate.may.release()
            await client.ask("GET", "/health")
        return seen, left, occupied, await stays

    async def one_step() -> None:
        gate.may.release()
        await wait_at(gate)

    def check(case: Leaving) -> None:
        for semaphore in (gate.may, gate.waits):  # what the last case has left
            while semaphore.acquire(blocking=False):
                pass
        before = running.counts.cancelled
        seen, left, occupied, answer = run(leave(case))
        assert seen, "nobody saw that the client has left"
        assert (left, occupied) == (before + 1, 1), "the slots were not free before the next step"
        program = ddim(alone.spec, steps=STAYS)
        found = np.array(answer.json()["samples"], np.float32)
        assert found.tobytes() == alone.sample(program, n=1, seed=case.seed).tobytes()

    return check


@pytest.mark.criterion("S3")
def test_clients_that_leave(
    gate: Gate,
    gated: Model,
    cases: Cases,
    nightly: bool,
    note: Callable[[str], None],
) -> None:
    count = 210 if nightly else 21
    cases.run(slot_is_free(gate, gated), leavings(count))
    note(f"S3: {count} clients left at random steps, and each slot was free before the next step")


@pytest.mark.seeded("S3")
def test_a_client_that_nobody_watches_is_seen(
    gate: Gate,
    gated: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(receive: object) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(service, "_gone", never)
    with pytest.raises(AssertionError, match="nobody saw that the client has left"):
        slot_is_free(gate, gated)(Leaving(*JSON, step=2, n=2, seed=1))


class SlowReader(Leaver):
    """A client of a stream that reads the status, and then nothing until it is told to."""

    def __init__(self, application: Any, **fields: Any) -> None:
        self.reads = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            async def sending(message: Any) -> None:
                if message["type"] != "http.response.start":
                    await self.reads.wait()
                await send(message)

            await application(scope, receive, sending)

        super().__init__(slow, IMAGES, stream=True, partial_images=3, **fields)


def held_up(gate: Gate, gated: Model, readers: int) -> int:
    """Demand what S7 does of so many slow readers; return how many previews were kept for them."""
    gated.scheduler(SchedulerSettings(queue=readers + 1, slots=4))
    client = client_of(ServeSettings(streams=readers), digits=gated)
    fields = {"sampler": "ddim", "num_inference_steps": 4}
    alone = Model(gated.bundle, gate.backend, max_batch=1)
    kept: list[tickets.Previews] = []
    stream = tickets.Ticket.stream

    def watched(ticket: tickets.Ticket, *asked: Any, **more: Any) -> tickets.Previews:
        kept.append(stream(ticket, *asked, **more))
        return kept[-1]

    async def crowd() -> tuple[Any, list[SlowReader], int]:
        slow = [SlowReader(client.application, n=4, **fields) for _ in range(readers)]
        while len(kept) < readers:
            await client.ask("GET", "/health")
        gate.open()
        answer = await client.ask("POST", SAMPLES, json={**fields, "seed": 7})
        while gated.scheduler().counts.pending:
            await client.ask("GET", "/health")
        most = max(len(previews._kept) for previews in kept)
        for reader in slow:
            reader.reads.set()
        await asyncio.wait([reader.over for reader in slow])
        return answer, slow, most

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tickets.Ticket, "stream", watched)
        patched.setattr("difftool.serve.drawing._SEND_SECONDS", None)  # no verdict by the clock
        answer, slow, most = run(crowd())
    found = np.array(answer.json()["samples"], np.float32)
    program = ddim(alone.spec, steps=4)
    assert found.tobytes() == alone.sample(program, n=1, seed=7).tobytes()
    for reader in slow:
        text = b"".join(message.get("body", b"") for message in reader.sent).decode()
        assert "image_generation.completed" in text, "a slow reader has no image"
    counts = gated.scheduler().counts
    assert (counts.ok, counts.accepted) == (readers + 1, readers + 1)
    assert most <= 8, f"{most} previews are kept for a reader"
    return most


@pytest.mark.criterion("S7")
def test_slow_readers(gate: Gate, gated: Model, note: Callable[[str], None]) -> None:
    held_up(gate, gated, READERS)
    note(f"S7: {READERS} readers that read nothing held nobody up, and had their images")


@pytest.mark.seeded("S7")
def test_previews_that_are_all_kept_are_seen(
    gate: Gate,
    gated: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = tickets.Previews.__init__

    def unbounded(previews: tickets.Previews, what: tickets.What, most: int) -> None:
        begin(previews, what, 1 << 20)

    monkeypatch.setattr(tickets.Previews, "__init__", unbounded)
    with pytest.raises(AssertionError, match="previews are kept"):
        held_up(gate, gated, 5)
