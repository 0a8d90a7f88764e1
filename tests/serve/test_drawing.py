"""What is drawn over HTTP is what `Model.sample` draws, in the shapes that clients know."""

import asyncio
import base64
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import difftool
from difftool.diffusion import caveats
from difftool.diffusion.samplers import ddim, ddpm
from difftool.runtime import Model
from difftool.serve import Application
from tests.serve.conftest import Gate, client_of, error_of, events_of, run, wait_at
from tests.serve.test_cancels import Leaver

IMAGES, SAMPLES = "/v1/images/generations", "/v1/samples"


def pixels(picture: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))


def drawn(model: Model, *asked: Any, **fields: Any) -> Any:
    """The samples as they are drawn alone, one at a time."""
    return Model(model.bundle, model.backend, max_batch=1).sample(*asked, **fields)


def test_images_are_those_of_the_model(digits: Model) -> None:
    client = client_of(digits=digits)
    fields = {"sampler": "ddim", "num_inference_steps": 4, "sampler_arguments": {"eta": 0.5}}
    answer = client.post(IMAGES, model="digits", n=3, seed=7, size="28x28", **fields)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    expected = drawn(digits, ddim(digits.spec, steps=4, eta=0.5), n=3, seed=7)
    expected = difftool.to_uint8(expected, digits.spec)[..., 0]
    found = np.stack([pixels(each["b64_json"]) for each in said["data"]])
    assert (found == expected).all()
    assert said["program"].startswith("ddim(steps=4, eta=0.5")
    assert (said["model"], said["seed"], said["size"]) == ("digits", 7, "28x28")
    assert said["bundle"] == digits.bundle.manifest.digest
    assert 0 <= said["queue_seconds"] <= said["seconds"]
    assert said["id"] == answer.headers["x-request-id"]


def test_a_request_without_a_seed_can_be_drawn_again(digits: Model) -> None:
    client = client_of(digits=digits)
    first, other = (client.post(IMAGES, num_inference_steps=2).json() for _ in range(2))
    assert first["seed"] != other["seed"]
    again = client.post(IMAGES, num_inference_steps=2, seed=first["seed"]).json()
    assert again["data"] == first["data"] != other["data"]


def test_a_prompt_is_answered_with_a_warning(digits: Model) -> None:
    client = client_of(digits=digits)
    assert client.post(IMAGES).json()["warnings"] == []
    (warning,) = client.post(IMAGES, prompt="a 7").json()["warnings"]
    assert warning.startswith("prompt")


def test_a_poor_program_is_answered_with_a_warning(
    digits: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """In the answer and in the log's line of the request, as `difftool sample` says it."""
    client = client_of(digits=digits)
    asked = {"sampler": "ddim", "num_inference_steps": 2}
    expected = caveats(ddim(digits.spec, steps=2), digits.spec, digits.default_program())
    assert len(expected) == 1
    with caplog.at_level(logging.INFO, "difftool.serve"):
        for path in (IMAGES, SAMPLES):
            assert client.post(path, **asked).json()["warnings"] == list(expected)
    logged = [json.loads(each.message) for each in caplog.records]
    assert [each["warnings"] for each in logged if "warnings" in each] == [list(expected)] * 2
    both = client.post(IMAGES, **asked, prompt="a 7").json()["warnings"]
    assert both[:1] == list(expected)
    assert len(both) == 2


def test_arrays_as_json_and_npy(classes_bundle: Path) -> None:
    model = difftool.load(classes_bundle, max_batch=4, threads=1)
    client = client_of(classes=model)
    fields: dict[str, Any] = {"n": 3, "seed": 2**64 - 1, "first_sample": 5}
    fields |= {"labels": [2, 0, 1], "guidance_scale": 3}
    expected = drawn(model, ddpm(model.spec, steps=3), **fields)
    asked = {**fields, "sampler": "ddpm", "num_inference_steps": 3}
    said = client.post(SAMPLES, **asked).json()
    assert said["shape"] == [3, *model.spec.shape]
    assert np.array(said["samples"], np.float32).tobytes() == expected.tobytes()
    accept = {"accept": "application/octet-stream"}
    answer = client("POST", SAMPLES, json=asked, headers=accept)
    assert np.load(io.BytesIO(answer.content)).tobytes() == expected.tobytes()
    assert answer.headers["x-seed"] == str(2**64 - 1)


def test_points_are_no_images(points_bundle: Path) -> None:
    client = client_of(points=difftool.load(points_bundle, threads=1))
    assert client.post(SAMPLES, n=2, seed=0).json()["shape"] == [2, 2]
    answer = client.post(IMAGES, n=2)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "no-images")


@pytest.mark.parametrize(("n", "previews"), [(1, 3), (2, 1), (1, 0)])
def test_a_stream_shows_previews_and_then_the_images(digits: Model, n: int, previews: int) -> None:
    client = client_of(digits=digits)
    fields = {"n": n, "seed": 1, "num_inference_steps": 8, "first_sample": 4}
    whole = client.post(IMAGES, **fields).json()
    answer = client.post(IMAGES, stream=True, partial_images=previews, **fields)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert [name for name, _ in events[-n:]] == ["image_generation.completed"] * n
    assert all(name == data["type"] for name, data in events)
    done = [data for _, data in events[-n:]]
    assert [{"b64_json": data["b64_json"]} for data in done] == whole["data"]
    assert [data["index"] for data in done] == list(range(n))
    shown = [data for _, data in events[:-n]]
    assert {name for name, _ in events[:-n]} <= {"image_generation.partial_image"}
    for index in range(n):
        own = [data for data in shown if data["index"] == index]
        assert [data["partial_image_index"] for data in own] == list(range(len(own)))
        assert len(own) <= previews
        assert all(pixels(data["b64_json"]).shape == (28, 28) for data in own)


def test_every_step_can_be_shown(gated: Model, gate: Gate) -> None:
    application = Application({"digits": gated})

    async def shown() -> Any:
        fields = {"n": 4, "sampler": "ddim", "num_inference_steps": 6}
        client = Leaver(application, IMAGES, stream=True, previews=100, **fields)
        await wait_at(gate)
        while not client.sent:  # until the answer has begun
            await asyncio.to_thread(int)
        gate.open()
        await client.over
        return b"".join(message.get("body", b"") for message in client.sent)

    events = events_of(run(shown()).decode())
    steps = [(data["index"], data["step"]) for _, data in events[:-4]]
    assert sorted(steps) == [(index, step) for index in range(4) for step in range(1, 6)]


def test_what_is_served(digits: Model) -> None:
    client = client_of(a=digits, b=digits)
    (first, second) = client("GET", "/v1/models").json()["data"]
    assert (first["id"], second["id"]) == ("a", "b")
    assert (first["shape"], first["images"], first["classes"]) == ([1, 28, 28], True, 10)
    assert "ddim" in first["samplers"]
    assert client("GET", "/v1/models/b").json() == second
    assert client("GET", "/health").json() == {"status": "ok"}
    assert client("GET", "/ready").json() == {"status": "ready"}
    client.post(SAMPLES, model="a", num_inference_steps=2)
    client("GET", "/secret/path")
    text = client("GET", "/metrics").text
    assert 'difftool_requests_total{model="a",outcome="accepted"}' in text
    assert 'difftool_http_answers_total{route="/v1/samples",status="200"} 1.0' in text
    assert 'difftool_http_answers_total{route="other",status="404"} 1.0' in text
    assert "secret" not in text
