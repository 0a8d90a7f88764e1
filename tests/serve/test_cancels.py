"""Whoever goes frees the slots, and nobody else notices: by DELETE, by leaving, by a drain."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from difftool.diffusion.samplers import ddim
from difftool.runtime import Model
from tests.serve.conftest import Gate, client_of, error_of, events_of, run, wait_at

IMAGES, SAMPLES = "/v1/images/generations", "/v1/samples"
LONG = {"sampler": "ddim", "num_inference_steps": 10, "seed": 3}


class Leaver:
    """A client that sends a request and leaves when it is told to."""

    def __init__(self, application: Any, path: str, *, method: str = "POST", **fields: Any) -> None:
        self.leaving, self.sent = asyncio.Event(), list[Any]()
        body = [{"type": "http.request", "body": json.dumps(fields).encode(), "more_body": False}]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json")],
        }

        async def receive() -> Any:
            if body:
                return body.pop()
            await self.leaving.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            self.sent.append(message)

        self.over = asyncio.ensure_future(application(scope, receive, send))


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"stream": True, "partial_images": 3}])
def test_a_client_that_leaves_frees_its_slots(
    gate: Gate, gated: Model, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "difftool.serve.application")
    client = client_of(digits=gated)

    async def leave() -> Any:
        leaver = Leaver(client.application, IMAGES, n=3, **LONG, **fields)
        await wait_at(gate)
        neighbour = asyncio.create_task(client.ask("POST", SAMPLES, json=LONG))
        while gated.scheduler().counts.accepted < 2:
            await client.ask("GET", "/health")
        leaver.leaving.set()
        await leaver.over  # while the step still stands at the gate
        assert not any(message.get("body") for message in leaver.sent)
        gate.open()
        return await neighbour

    found = np.array(run(leave()).json()["samples"], np.float32)
    alone = Model(gated.bundle, gate.backend, max_batch=1)
    assert found.tobytes() == alone.sample(ddim(alone.spec, steps=10), n=1, seed=3).tobytes()
    counts = gated.scheduler().counts
    assert (counts.cancelled, counts.ok, counts.pending) == (1, 1, 0)
    lines = [json.loads(each.getMessage()) for each in caplog.records]
    lines = [line for line in lines if line["method"] == "POST"]
    assert len(lines) == 2
    assert {(line["route"], line["model"]) for line in lines} == {
        (IMAGES, "digits"),
        (SAMPLES, "digits"),
    }


def test_a_client_that_leaves_before_its_request_is_queued(gate: Gate, gated: Model) -> None:
    client = client_of(digits=gated)

    async def leave() -> None:
        for fields in ({}, {"stream": True}):
            leaver = Leaver(client.application, IMAGES, **LONG, **fields)
            leaver.leaving.set()
            await leaver.over
        gate.open()
        assert (await client.ask("POST", SAMPLES, json=LONG)).status_code == 200

    run(leave())
    assert gated.scheduler().counts.cancelled == 2


def test_delete(gate: Gate, gated: Model) -> None:
    client = client_of(digits=gated)

    async def delete() -> None:
        kept = {"x-request-id": "mine-1"}
        first = client.ask("POST", SAMPLES, json=LONG, headers=kept)
        waiting = asyncio.create_task(first)
        await wait_at(gate)
        again = await client.ask("POST", SAMPLES, json=LONG, headers=kept)
        assert (again.status_code, error_of(again)["code"]) == (400, "id-in-use")
        deleted = await client.ask("DELETE", "/v1/requests/mine-1")
        assert deleted.json() == {"id": "mine-1", "cancelled": True}
        answer = await waiting
        assert (answer.status_code, error_of(answer)["code"]) == (499, "cancelled")
        assert answer.headers["x-request-id"] == "mine-1"
        gone = await client.ask("DELETE", "/v1/requests/mine-1")
        assert gone.status_code == 404

        ids = {"x-request-id": "mine-2"}
        streamed = client.ask("POST", IMAGES, json={**LONG, "stream": True}, headers=ids)
        streaming = asyncio.create_task(streamed)
        while (await client.ask("DELETE", "/v1/requests/mine-2")).status_code == 404:
            await client.ask("GET", "/health")
        ((name, data),) = events_of((await streaming).text)
        assert (name, data["error"]["code"]) == ("error", "cancelled")

    run(delete())


@pytest.mark.parametrize("patient", [True, False])
def test_a_drain_lets_requests_end_and_takes_no_new_ones(
    gate: Gate, gated: Model, patient: bool
) -> None:
    client = client_of(digits=gated)
    service = client.application.service

    async def drain() -> None:
        running = asyncio.create_task(client.ask("POST", SAMPLES, json=LONG))
        await wait_at(gate)
        draining = asyncio.create_task(service.drain(500 if patient else 0))
        while not service.draining:
            await client.ask("GET", "/health")
        for method, path in (("GET", "/ready"), ("POST", SAMPLES)):
            refused = await client.ask(method, path, json=LONG)
            assert (refused.status_code, error_of(refused)["code"]) == (503, "not-ready")
            assert "retry-after" in refused.headers
        assert (await client.ask("GET", "/health")).status_code == 200
        if patient:
            assert not draining.done()
            gate.open()
        await draining
        assert (await running).status_code == (200 if patient else 499)

    run(drain())
    gate.open()
    service.close()
    assert gated.scheduler().counts.pending == 0
    assert client("GET", "/ready").status_code == 503
