"""What is refused: each with its status, its code, what to do, and nothing drawn."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Mount, Router

from difftool.cli import main
from difftool.errors import ResourceError, UsageError
from difftool.runtime import Model, SchedulerSettings
from difftool.serve import ServeSettings, read_keys, require_safe
from difftool.serve.service import Service
from tests.serve.conftest import Client, Gate, client_of, error_of, events_of, run, wait_at

IMAGES, SAMPLES = "/v1/images/generations", "/v1/samples"
SHORT = {"num_inference_steps": 2}
NO_STEPS = {"num_inference_steps": None}


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"quality": "hd"}, 400, "quality"),
        ({"n": 0}, 400, "n"),
        ({"n": True}, 400, "n"),
        ({"n": "3"}, 400, "n"),
        ({"n": 65}, 422, "n"),
        ({"seed": -1}, 400, "seed"),
        ({"seed": 2**64}, 400, "seed"),
        ({"num_inference_steps": 2001}, 422, "num_inference_steps"),
        ({"sampler_arguments": {"steps": 3}}, 400, "sampler_arguments"),
        ({**NO_STEPS, "sampler_arguments": {"steps": 10**12}}, 422, "num_inference_steps"),
        ({**NO_STEPS, "sampler_arguments": {"steps": "many"}}, 400, None),
        ({"sampler": "none"}, 400, None),
        ({"sampler": "ddim", "sampler_arguments": {"eat": 1}}, 400, None),
        ({"labels": 11}, 400, None),
        ({"labels": [0.5]}, 400, "labels"),
        ({"guidance_scale": 1e308}, 400, "guidance_scale"),
        ({"size": "1024x1024"}, 400, "size"),
        ({"response_format": "url"}, 400, "response_format"),
        ({"partial_images": 4, "stream": True}, 400, "partial_images"),
        ({"partial_images": 1}, 400, "partial_images"),
        ({"previews": 101, "stream": True}, 400, "previews"),
        ({"previews": 1}, 400, "previews"),
        ({"previews": 1, "partial_images": 1, "stream": True}, 400, "previews"),
        ({"model": "other"}, 404, "model"),
        ({"model": "../../etc/passwd"}, 404, "model"),
        ({"deadline": 0}, 400, "deadline"),
        ({"stream": True, "n": 65}, 422, "n"),
    ],
    ids=str,
)
def test_a_field_is_refused(
    digits: Model, fields: dict[str, Any], status: int, param: str | None
) -> None:
    before = digits.scheduler().counts.accepted
    answer = client_of(digits=digits).post(IMAGES, **{**SHORT, **fields})
    assert answer.status_code == status, answer.text
    error = error_of(answer)
    assert error["param"] == param
    assert error["hint"]
    assert digits.scheduler().counts.accepted == before


def test_two_models_must_be_told_apart(digits: Model) -> None:
    answer = client_of(a=digits, b=digits).post(SAMPLES, **SHORT)
    assert (answer.status_code, error_of(answer)["hint"]) == (400, "one of: a, b")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"n": NaN}', b"\xff", b"[" * 5000, b'"x"'])
def test_what_is_no_object(digits: Model, body: bytes) -> None:
    json = {"content-type": "application/json"}
    answer = client_of(digits=digits)("POST", SAMPLES, content=body, headers=json)
    assert answer.status_code == 400
    assert error_of(answer)["code"].startswith("invalid-")


def test_a_page_of_another_site_cannot_ask(digits: Model) -> None:
    """It could send a plain text without a preflight, which is JSON for who does not look."""
    text = {"content-type": "text/plain"}
    answer = client_of(digits=digits)("POST", SAMPLES, content=b'{"n": 1}', headers=text)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "not-json")


def test_a_body_is_measured_while_it_comes(digits: Model) -> None:
    client = client_of(ServeSettings(max_body=100), digits=digits)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 40
            yield b" " * 40

    json = {"content-type": "application/json"}
    assert client.post(SAMPLES, model="x" * 100).status_code == 413
    answer = client("POST", SAMPLES, content=endless(), headers=json)
    assert (answer.status_code, error_of(answer)["code"]) == (413, "body-too-large")
    assert sent == 120


def test_a_body_that_does_not_come(digits: Model) -> None:
    client = client_of(ServeSettings(patience=math.ulp(0)), digits=digits)

    async def stuck() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    json = {"content-type": "application/json"}
    for path in (SAMPLES, IMAGES):
        answer = client("POST", path, content=stuck(), headers=json)
        assert (answer.status_code, error_of(answer)["code"]) == (408, "slow-body")
    answer = client("POST", "/v2/models/digits/infer", content=stuck())
    assert answer.status_code == 408


def test_many_mistakes_are_counted(digits: Model) -> None:
    """To list them all would hold up everybody for seconds."""
    json = {"content-type": "application/json"}
    client, said = client_of(digits=digits), []
    for count in (9, 60_000):
        body = b"{" + b",".join(b'"%x": 1' % number for number in range(count)) + b"}"
        said.append(error_of(client("POST", SAMPLES, content=body, headers=json)))
    assert [error["param"] for error in said] == ["0", None]
    assert said[1]["message"].startswith("60000 values")


def test_work_is_limited(digits: Model) -> None:
    client = client_of(ServeSettings(max_work=784 * 2 * 3), digits=digits)
    assert client.post(SAMPLES, n=3, **SHORT).status_code == 200
    assert client.post(SAMPLES, n=4, **SHORT).status_code == 422
    tight = Model(digits.bundle, digits.backend, max_batch=4, max_work=784)
    assert client_of(digits=tight).post(SAMPLES, **SHORT).status_code == 422


def test_keys(digits: Model) -> None:
    client = client_of(ServeSettings(keys=("first key of 2 words", "second-key-000000")), d=digits)
    assert client("GET", "/health").status_code == client("GET", "/ready").status_code == 200
    for path in ("/v1/models", "/metrics", "/nothing"):
        answer = client("GET", path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert error_of(answer)["code"] == "no-key"
    for sent, status in (
        ("Bearer second-key-000000", 200),
        ("bearer first key of 2 words", 200),
        ("Bearer second-key-00000", 401),
        ("Basic second-key-000000", 401),
        ("second-key-000000", 401),
        ("Bearer ", 401),
    ):
        answer = client("GET", "/v1/models", headers={"authorization": sent})
        assert answer.status_code == status, sent
    assert "second" not in repr(client.application.service.settings)


def test_no_such_route(digits: Model) -> None:
    client = client_of(digits=digits)
    for method, path, status in (
        ("GET", "/v1", 404),
        ("GET", "/v1/samples", 405),
        ("POST", "/health", 405),
        ("GET", "/v1/models/other", 404),
        ("DELETE", "/v1/requests/other", 404),
        ("GET", "/health/", 404),
    ):
        answer = client(method, path)
        assert answer.status_code == status, path
        assert ("allow" in answer.headers) == (status == 405)
        error_of(answer)


def test_a_full_queue(gate: Gate, gated: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    gated.scheduler(SchedulerSettings(queue=1, slots=4))
    client = client_of(ServeSettings(streams=1), digits=gated)

    async def crowd() -> None:
        running = asyncio.create_task(client.ask("POST", SAMPLES, json={"n": 4, **SHORT}))
        await wait_at(gate)
        streaming = {"stream": True, **SHORT}
        waiting = asyncio.create_task(client.ask("POST", IMAGES, json=streaming))
        while gated.scheduler().counts.accepted < 2:
            await client.ask("GET", "/health")
        # A refusal costs so little that ten times the load hardly slows the server down.
        monkeypatch.setattr(Service, "_submit", None)
        for path, fields in ((SAMPLES, SHORT), (IMAGES, streaming)):
            refused = await client.ask("POST", path, json=fields)
            assert (refused.status_code, error_of(refused)["code"]) == (429, "busy")
            assert int(refused.headers["retry-after"]) > 0
        for path in ("/health", "/ready", "/metrics", "/v1/models"):
            assert (await client.ask("GET", path)).status_code == 200
        gate.open()
        assert (await running).status_code == (await waiting).status_code == 200

    run(crowd())


def test_a_deadline(digits: Model) -> None:
    client = client_of(digits=digits)
    answer = client.post(SAMPLES, deadline=1e-9, **SHORT)
    assert (answer.status_code, error_of(answer)["code"]) == (504, "deadline")
    answer = client.post(IMAGES, deadline=1e-9, stream=True, **SHORT)
    ((name, data),) = events_of(answer.text)
    assert (name, data["error"]["code"]) == ("error", "deadline")
    short = client_of(ServeSettings(deadline=1e-9), digits=digits)
    assert short.post(SAMPLES, deadline=100, **SHORT).status_code == 504


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(RuntimeError("/secret"), 500, "failed"), (ResourceError("no room"), 503, "no-memory")],
    ids=repr,
)
def test_a_backend_that_throws(
    gate: Gate, gated: Model, error: Exception, status: int, code: str
) -> None:
    def fail() -> None:
        raise error

    gate.open()
    client = client_of(digits=gated)
    gate.before = fail
    answer = client.post(SAMPLES, **SHORT)
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    assert "secret" not in answer.text
    gate.before = lambda: None
    assert client.post(SAMPLES, **SHORT).status_code == 200


def test_a_step_that_hangs(gate: Gate, gated: Model) -> None:
    client = client_of(ServeSettings(hang=math.ulp(0)), digits=gated)

    async def hang() -> None:
        asked = asyncio.create_task(client.ask("POST", SAMPLES, json=SHORT))
        await wait_at(gate)
        for answer in (
            await client.ask("GET", "/ready"),
            await client.ask("POST", SAMPLES, json=SHORT),
        ):
            assert (answer.status_code, error_of(answer)["code"]) == (503, "not-ready")
        assert (await client.ask("GET", "/health")).status_code == 200
        gate.open()
        assert (await asked).status_code == 200

    run(hang())


def test_who_may_listen(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        require_safe(host, keys=(), insecure=False)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        with pytest.raises(UsageError, match="everybody"):
            require_safe(host, keys=(), insecure=False)
        require_safe(host, keys=("k" * 16,), insecure=False)
        require_safe(host, keys=(), insecure=True)
    file = tmp_path / "keys"
    file.write_text("# ours\n" + "a" * 16 + "\n\n" + "b" * 20 + "\n")
    assert read_keys(file) == ("a" * 16, "b" * 20)
    for text in ("", "# none\n", "short\n", "é" * 20):
        file.write_text(text)
        with pytest.raises(UsageError, match="key"):
            read_keys(file)


def test_what_the_command_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eta=0.5").mkdir()
    for words, said in (
        (["eta=0.5"], "eta=0.5"),  # a folder of this name
        (["=ddpm-mnist"], "gives a model no name"),
        (["runs/a=ddpm-mnist"], "gives a model no name"),
        (["ddpm-mnist", "./ddpm-mnist/"], "two models are called ddpm-mnist"),
        (["ddpm-mnist", "--host", "0.0.0.0"], "--api-key-file"),
        (["ddpm-mnist", "ddpm-mnist"], "two models are called ddpm-mnist"),
        (["ddpm-mnist", "--batching", "never"], "unknown batching"),
        (["ddpm-mnist", "--max-n", "0"], "max_n"),
        (["nowhere"], "no bundle at nowhere"),
    ):
        assert main(["serve", *words]) in (2, 3)
        assert said in capsys.readouterr().err


def test_settings() -> None:
    with pytest.raises(UsageError, match="more than 0"):
        ServeSettings(deadline=math.nan)


def test_the_log_has_no_line_for_each_look_of_a_page(
    digits: Model, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "difftool.serve.application")
    client = client_of(ServeSettings(keys=("k" * 16,)), digits=digits)
    key = {"authorization": "Bearer " + "k" * 16}
    for headers in (key, key, {}):  # the last one is refused, which the log says
        client("GET", "/v1/status", headers=headers)
    assert client("GET", "/v1/models", headers=key).status_code == 200
    lines = [json.loads(each.getMessage()) for each in caplog.records]
    found = [(line["route"], line["status"]) for line in lines]
    assert found == [("/v1/status", 401), ("/v1/models", 200)]
    counted = client("GET", "/metrics", headers=key).text
    assert 'difftool_http_answers_total{route="/v1/status",status="200"} 2.0' in counted


def test_it_can_be_mounted(digits: Model) -> None:
    inner = client_of(ServeSettings(keys=("k" * 16,)), digits=digits).application
    client = Client(Router([Mount("/draw", inner)]))
    assert client("GET", "/draw/health").status_code == 200
    assert client("GET", "/draw/v1/models").status_code == 401
    key = {"authorization": "Bearer " + "k" * 16}
    assert client("POST", "/draw" + SAMPLES, json=SHORT, headers=key).status_code == 200
    assert 'route="/v1/samples",status="200"' in client("GET", "/draw/metrics", headers=key).text
