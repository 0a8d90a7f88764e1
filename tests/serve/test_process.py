"""A server in a process of its own: clients as they are, those that vanish, and signals."""

import base64
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import difftool
from difftool.diffusion.samplers import ddim

pytest.importorskip("starlette")
httpx = pytest.importorskip("httpx2")

from difftool.serve.server import listening  # noqa: E402
from tests.serve.served import IMAGES, KEY, SAMPLES, Served, serving  # noqa: E402

LONG = {"n": 64, "num_inference_steps": 1000, "sampler": "ddim"}  # until somebody ends it


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as found:
        yield found


def test_clients_that_vanish(served: Served) -> None:
    cancelled = 'difftool_requests_total{model="ddpm-mnist",outcome="cancelled"}'
    before = served.metric(cancelled)
    for count, (path, more) in enumerate(
        [(SAMPLES, {}), (IMAGES, {"stream": True, "partial_images": 3}), (IMAGES, {})], start=1
    ):
        served.leave(path, **LONG, **more)
        served.until(cancelled, before + count)
        served.until('difftool_samples_running{model="ddpm-mnist"}', 0)
    short = {"sampler": "ddim", "num_inference_steps": 3, "seed": 1}
    found = np.array(served.client.post(SAMPLES, json=short).json()["samples"], np.float32)
    model = difftool.load("ddpm-mnist", max_batch=1, threads=1)
    assert found.tobytes() == model.sample(ddim(model.spec, steps=3), n=1, seed=1).tobytes()


def test_openai_as_it_is(served: Served) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0)
    ours = {"sampler": "ddim", "num_inference_steps": 4, "seed": 5}
    with client:
        assert [model.id for model in client.models.list()] == ["ddpm-mnist"]
        assert client.models.retrieve("ddpm-mnist").owned_by == "difftool"
        asked = {"model": "ddpm-mnist", "prompt": "a digit", "extra_body": ours}
        answer = client.images.generate(
            n=2, size="28x28", response_format="b64_json", user="me", **asked
        )
        pictures = [base64.b64decode(image.b64_json) for image in answer.data]
        assert [picture[:4] for picture in pictures] == [b"\x89PNG"] * 2
        with client.images.generate(stream=True, partial_images=2, **asked) as stream:
            events = list(stream)
        last = events[-1]
        assert last.type == "image_generation.completed"
        assert base64.b64decode(last.b64_json) == pictures[0]
        assert {event.type for event in events[:-1]} <= {"image_generation.partial_image"}
        with pytest.raises(openai.BadRequestError) as refused:
            client.images.generate(quality="hd", **asked)
        assert (refused.value.code, refused.value.param) == ("invalid-field", "quality")
        with pytest.raises(openai.NotFoundError):
            client.images.generate(model="dall-e-3", prompt="a digit")
        with (
            client.images.generate(
                stream=True, **{**asked, "extra_body": {**ours, "deadline": 1e-9}}
            ) as stream,
            pytest.raises(openai.APIError, match="deadline"),
        ):
            list(stream)
    with (
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
def test_tritons_client_as_it_is(served: Served, packed: str | None) -> None:
    triton = pytest.importorskip("tritonclient.http")
    utils = pytest.importorskip("tritonclient.utils")
    key = {"authorization": f"Bearer {KEY}"}
    model = difftool.load("ddpm-mnist", max_batch=1, threads=1)
    expected = model.sample(ddim(model.spec, steps=3), n=2, seed=2**64 - 1).tobytes()
    values = {
        "n": np.array([2], np.int64),
        "seed": np.array([2**64 - 1], np.uint64),
        "sampler": np.array(["ddim"], np.object_),
        "num_inference_steps": np.array([3], np.int64),
    }
    address = served.url.removeprefix("http://")
    client = triton.InferenceServerClient(address, connection_timeout=500, network_timeout=500)
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("ddpm-mnist", headers=key)
        assert client.get_server_metadata(headers=key)["extensions"] == ["binary_tensor_data"]
        metadata = client.get_model_metadata("ddpm-mnist", headers=key)
        kinds = {each["name"]: each["datatype"] for each in metadata["inputs"]}
        assert metadata["outputs"][0]["shape"] == [-1, 1, 28, 28]

        def infer(binary: bool, outputs: Any, **more: Any) -> Any:
            inputs = [triton.InferInput(each, values[each].shape, kinds[each]) for each in values]
            for each in inputs:
                each.set_data_from_numpy(values[each.name()], binary_data=binary)
            found = client.infer(
                "ddpm-mnist",
                inputs,
                outputs=outputs,
                headers=dict(key),
                request_compression_algorithm=packed,
                **more,
            )
            assert found.get_response()["parameters"]["seed"] == 2**64 - 1
            return found.as_numpy("samples").tobytes()

        for binary in (True, False):
            for outputs in (None, [triton.InferRequestedOutput("samples", binary_data=False)]):
                assert infer(binary, outputs, request_id="mine") == expected
        waiting = client.async_infer(
            "ddpm-mnist",
            [],
            headers=dict(key),
            parameters={"sampler": "ddim", "num_inference_steps": 3, "n": 2, "seed": 2**64 - 1},
        )
        assert waiting.get_result().as_numpy("samples").tobytes() == expected
        with pytest.raises(utils.InferenceServerException, match="no such model"):
            client.get_model_metadata("other", headers=key)
        with pytest.raises(utils.InferenceServerException, match="no parameter 'eta'"):
            infer(True, None, parameters={"eta": 1})
        with pytest.raises(utils.InferenceServerException, match="no key"):
            client.get_server_metadata()
    finally:
        client.close()


def test_sigterm_lets_a_request_end(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain-timeout", "500") as found:
        fields = {"sampler": "ddim", "num_inference_steps": 300, "stream": True}
        with found.client.stream("POST", IMAGES, json={**fields, "partial_images": 3}) as answer:
            text = answer.iter_text()
            assert "partial_image" in next(text)  # it draws
            code, lines = found.end(signal.SIGTERM)
            assert "image_generation.completed" in "".join(text)
    assert code == 0
    (line,) = [line for line in lines if line["route"] == IMAGES]
    assert (line["status"], line["model"], line["code"]) == (200, "ddpm-mnist", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_ends(number: signal.Signals, tmp_path: Path) -> None:
    with serving(tmp_path, "--drain-timeout", "0") as found:
        with found.client.stream("POST", IMAGES, json={**LONG, "stream": True}) as answer:
            found.until('difftool_requests_pending{model="ddpm-mnist"}', 1)
            code, _ = found.end(number)
            assert '"cancelled"' in "".join(answer.iter_text())
        assert code == 0
        with pytest.raises(httpx.ConnectError):
            found.client.get("/health")


def test_no_answer_waits_for_the_client_to_acknowledge_its_head() -> None:
    """asyncio sets TCP_NODELAY on connections whose socket names TCP, and on no others."""
    with (
        listening("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.proto == socket.IPPROTO_TCP
