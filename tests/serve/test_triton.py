"""Triton's own server and its own clients: the step scheduler within its Python backend."""

import queue
import re
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import difftool
from difftool.diffusion.samplers import ddim
from difftool.runtime import Model
from tests.serve.triton_server import Triton, require_server, running

pytest.importorskip("starlette")
http = pytest.importorskip("tritonclient.http")
grpc = pytest.importorskip("tritonclient.grpc")

InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException

NAME, STREAM, NARROW = "ddpm-mnist", "ddpm-mnist-stream", "narrow"
SHORT = {"sampler": "ddim", "num_inference_steps": 2}
LONG = {"n": 16, "num_inference_steps": 1000}  # until somebody ends it
ROWS = 30
REQUESTS = 16


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A server of the model, the one with previews, and one that runs a single sample at a time."""
    require_server()
    folder = tmp_path_factory.mktemp("triton")
    repository = difftool.compile.triton(NAME, folder / "models").path
    shutil.copytree(repository / NAME, repository / NARROW)
    for model, batch, slots in ((NAME, 16, 16), (STREAM, 4, 4), (NARROW, 1, 1)):
        set_up(repository / model, threads=1, max_batch=batch, slots=slots)
    with running(repository, [NAME, STREAM, NARROW], folder) as server:
        yield server


def set_up(model: Path, **parameters: int) -> None:
    with open(model / "config.pbtxt", "a") as file:
        for key, value in parameters.items():
            file.write(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n')


@pytest.fixture(scope="module")
def alone() -> Model:
    """The model as it draws one sample at a time."""
    return difftool.load(NAME, max_batch=1, threads=1)


@pytest.fixture(scope="module")
def drawn_alone(alone: Model) -> list[Any]:
    program = ddim(alone.spec, steps=ROWS)
    return [alone.sample(program, n=1, seed=seed) for seed in range(REQUESTS)]


def inputs(client: Any, **fields: Any) -> list[Any]:
    """Return fields as the inputs that a client of Triton's sends."""
    kinds = {"seed": "UINT64", "guidance_scale": "FP64", "strength": "FP64", "deadline": "FP64"}
    found = []
    for name, value in fields.items():
        text = isinstance(value, str)
        array = np.atleast_1d(np.asarray(value, np.object_ if text else None))
        kind = "BYTES" if text else kinds.get(name, "INT64")
        if array.dtype == np.float32:
            kind = "FP32"
        if kind == "UINT64":
            array = array.astype(np.uint64)
        given = client.InferInput(name, array.shape, kind)
        given.set_data_from_numpy(array)
        found.append(given)
    return found


def by_grpc(server: Triton, model: str = NAME, **fields: Any) -> Any:
    with grpc.InferenceServerClient(server.grpc) as client:
        return client.infer(model, inputs(grpc, **fields), parameters=SHORT)


def begin(client: Any, model: str, fields: dict[str, Any]) -> tuple[Any, "queue.Queue[Any]"]:
    """Send a request; return what cancels it, and where its answer comes."""
    came: queue.Queue[Any] = queue.Queue()
    call = client.async_infer(
        model,
        inputs(grpc, **fields),
        lambda result, error: came.put(error or result),
        parameters={"sampler": "ddim"},
    )
    return call, came


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_requests_share_steps(triton: Triton, drawn_alone: list[Any], protocol: str) -> None:
    before = triton.metric("steps", NAME)
    asked = [{"seed": seed, "num_inference_steps": ROWS} for seed in range(REQUESTS)]
    if protocol == "grpc":
        with grpc.InferenceServerClient(triton.grpc) as client:
            came = [begin(client, NAME, fields)[1] for fields in asked]
            results = [each.get() for each in came]
    else:
        with http.InferenceServerClient(triton.http, concurrency=REQUESTS) as client:
            sent = [
                client.async_infer(NAME, inputs(http, **fields), parameters={"sampler": "ddim"})
                for fields in asked
            ]
            results = [each.get_result() for each in sent]
    assert triton.metric("steps", NAME) - before <= 75
    for seed, result in enumerate(results):
        assert result.as_numpy("samples").tobytes() == drawn_alone[seed].tobytes()
        assert result.as_numpy("seed").tolist() == [seed]


def test_the_fields_of_the_v2_protocol(triton: Triton, alone: Model) -> None:
    """Whatever is no text is an input; all but arrays are parameters, too."""
    program = ddim(alone.spec.up_to(0.5), steps=2, eta=0.5)
    start = np.linspace(-1, 1, 2 * 784, dtype=np.float32).reshape(2, 1, 28, 28)
    mask = (np.arange(784) < 392).astype(np.float32).reshape(1, 1, 28, 28)
    fields = {
        "n": 2,
        "seed": 2**64 - 1,
        "first_sample": 5,
        "init": start,
        "strength": 0.5,
        "known": start[:1],
        "mask": mask,
    }
    texts = {"sampler": "ddim", "sampler_arguments": '{"steps": 2, "eta": 0.5}'}
    with http.InferenceServerClient(triton.http) as client:
        result = client.infer(NAME, inputs(http, **fields), parameters=texts)
    edit = difftool.edits.inpaint(start[0], mask[0])
    asked = {"n": 2, "seed": 2**64 - 1, "first_sample": 5, "init": start, "edit": edit}
    expected = alone.sample(program, **asked)
    assert result.as_numpy("samples").tobytes() == expected.tobytes()
    numbers = {"n": 2, "seed": 9, "first_sample": 5, "num_inference_steps": 2}
    with grpc.InferenceServerClient(triton.grpc) as client:
        result = client.infer(NAME, [], parameters={"sampler": "ddim", **numbers})
    expected = alone.sample(ddim(alone.spec, steps=2), n=2, seed=9, first_sample=5)
    assert result.as_numpy("samples").tobytes() == expected.tobytes()


def test_a_seed_is_chosen_and_told(triton: Triton, alone: Model) -> None:
    result = by_grpc(triton)
    (seed,) = result.as_numpy("seed").tolist()
    expected = alone.sample(ddim(alone.spec, steps=2), n=1, seed=seed)
    assert result.as_numpy("samples").tobytes() == expected.tobytes()


def test_a_cancelled_request_leaves_its_slot(triton: Triton, alone: Model) -> None:
    """Its other 16,000 rows are not run, and who waits for the only slot gets it."""
    before = triton.metric("steps", NARROW)
    accepted = triton.metric("requests", NARROW, outcome="accepted")
    with grpc.InferenceServerClient(triton.grpc) as client:
        call, first = begin(client, NARROW, LONG)
        triton.until(1, "samples_running", NARROW)
        _, second = begin(client, NARROW, {"num_inference_steps": 2, "seed": 3})
        triton.until(accepted + 2, "requests", NARROW, outcome="accepted")
        call.cancel()
        result = second.get()
        assert "ancelled" in str(first.get())
    expected = alone.sample(ddim(alone.spec, steps=2), n=1, seed=3)
    assert result.as_numpy("samples").tobytes() == expected.tobytes()
    triton.until(0, "requests_pending", NARROW)
    assert triton.metric("requests", NARROW, outcome="cancelled") == 1
    steps = triton.metric("steps", NARROW)
    assert steps - before < LONG["n"] * LONG["num_inference_steps"] / 2
    by_grpc(triton, NARROW)
    assert triton.metric("steps", NARROW) == steps + 2


def test_previews_come_by_a_stream(triton: Triton, alone: Model) -> None:
    came: queue.Queue[Any] = queue.Queue()
    with grpc.InferenceServerClient(triton.grpc) as client:
        client.start_stream(lambda result, error: came.put(error or result))
        fields = inputs(grpc, n=2, seed=7, num_inference_steps=ROWS, previews=3)
        client.async_stream_infer(STREAM, fields, parameters={"sampler": "ddim"})
        seen = [came.get() for _ in range(6)]
        last = came.get()
    program = ddim(alone.spec, steps=ROWS)
    expected = alone.sample(program, n=2, seed=7)
    assert last.as_numpy("samples").tobytes() == expected.tobytes()
    states = {
        (sample, state.step): state.denoised[0].copy()
        for sample in range(2)
        for state in alone.stream(program, n=1, seed=7, first_sample=sample)
    }
    shown = [(each.as_numpy("sample").item(), each.as_numpy("step").item()) for each in seen]
    assert sorted(sample for sample, _ in shown) == [0, 0, 0, 1, 1, 1]
    for each, key in zip(seen, shown, strict=True):
        assert each.as_numpy("samples") is None
        assert each.as_numpy("preview").tobytes() == states[key].tobytes()


def test_a_stream_that_ends_cancels_its_requests(triton: Triton) -> None:
    with grpc.InferenceServerClient(triton.grpc) as client:
        client.start_stream(lambda result, error: None)
        fields = inputs(grpc, previews=100, **LONG)
        client.async_stream_infer(STREAM, fields, parameters={"sampler": "ddim"})
        triton.until(4, "samples_running", STREAM)
        client.stop_stream(cancel_requests=True)
    triton.until(0, "requests_pending", STREAM)
    assert triton.metric("requests", STREAM, outcome="cancelled") == 1


def test_triton_does_not_see_a_client_of_http_that_leaves(triton: Triton) -> None:
    """As docs/triton.md says: its request runs to the end."""
    accepted = triton.metric("requests", NARROW, outcome="accepted")
    done = triton.metric("requests", NARROW, outcome="ok")
    body = b'{"inputs": [], "parameters": {"sampler": "ddim", "num_inference_steps": 200}}'
    host, port = triton.http.split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v2/models/{NARROW}/infer HTTP/1.1\r\nhost: x\r\n"
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        triton.until(accepted + 1, "requests", NARROW, outcome="accepted")
    triton.until(done + 1, "requests", NARROW, outcome="ok")


REFUSED = [
    ({"n": 0}, {}, "n: Input should be greater than or equal to 1"),
    ({"n": [1, 2]}, {}, "n"),
    ({"n": 65}, {}, "65 are more than 64"),
    ({"num_inference_steps": 5000}, {}, "are more than 2000"),
    ({"labels": 11}, {}, "no class 11 in a model of 10"),
    ({"strength": 0.5}, {}, "there is no init"),
    ({"known": np.zeros((1, 1, 28, 28), np.float32)}, {}, "there is no mask"),
    ({"init": np.zeros((1, 28, 28), np.float32)}, {}, "init"),
    ({"init": np.full((1, 1, 28, 28), np.inf, np.float32), "strength": 0.5}, {}, "not finite"),
    ({"deadline": 1e-9}, {}, "deadline"),
    ({"other": 1}, {}, "other"),
    ({"sampler": "ddim"}, {}, "send sampler as a parameter"),
    ({"sampler": "x" * 256}, {}, "send sampler as a parameter"),
    ({"sampler_arguments": ""}, {}, "send sampler_arguments as a parameter"),
    ({}, {"sampler": "magic"}, "magic"),
    ({}, {"sampler": ""}, "sampler: "),
    ({}, {"sampler_arguments": "{"}, "not JSON"),
    ({}, {"colour": 1}, "there is no parameter 'colour'"),
    ({}, {"previews": 3}, "previews"),
    ({"n": 1}, {"n": 1}, "n is an input and a parameter"),
]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_is_wrong_is_refused_in_one_line(triton: Triton, protocol: str) -> None:
    """In one test, so that each refusal is followed by another request of the same process."""
    module, address = (http, triton.http) if protocol == "http" else (grpc, triton.grpc)
    with module.InferenceServerClient(address) as client:
        for fields, parameters, said in REFUSED:
            with pytest.raises(InferenceServerException) as caught:
                client.infer(NAME, inputs(module, **fields), parameters=parameters)
            message = caught.value.message()
            assert said in message, (fields, parameters, message)
            assert "\n" not in message
            assert "Traceback" not in message
            if protocol == "http":
                assert caught.value.status() == ("503" if "deadline" in fields else "400")
        drawn = client.infer(NAME, inputs(module, n=2), parameters=SHORT).as_numpy("samples")
    assert drawn.shape == (2, 1, 28, 28)


def test_what_the_page_says_works(
    triton: Triton, alone: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "triton.md").read_text()
    code = "".join(re.findall(r"^```py\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    code = code.replace("127.0.0.1:8000", triton.http).replace("127.0.0.1:8001", triton.grpc)
    found: dict[str, Any] = {}
    exec(code, found)
    expected = alone.sample(ddim(alone.spec, steps=20), n=2, seed=7)
    assert found["drawn"].as_numpy("samples").tobytes() == expected.tobytes()
    first, *shown = capsys.readouterr().out.splitlines()
    assert first == "(2, 1, 28, 28) [7]"
    assert len(shown) == 6


def test_its_own_checks_of_a_model(triton: Triton) -> None:
    """Who asks for what a model takes is told what `difftool serve` tells, and more."""
    fields = pytest.importorskip("difftool.serve")
    with http.InferenceServerClient(triton.http) as client:
        said = client.get_model_metadata(NAME)
        assert client.is_model_ready(STREAM)
    datatypes = {each["name"]: each["datatype"] for each in said["inputs"]}
    assert datatypes == {
        **{name: datatype for name, (datatype, _) in fields.INPUTS.items()},
        **dict.fromkeys(fields.ARRAYS, "FP32"),
    }


def test_many_at_once_of_all_kinds(triton: Triton, alone: Model) -> None:
    """Some are cancelled at once, and the others are drawn as if they were alone."""
    program = ddim(alone.spec, steps=2)
    with grpc.InferenceServerClient(triton.grpc) as client:
        for _ in range(4):
            sent = [
                begin(client, NAME, {"seed": seed, "num_inference_steps": 2}) for seed in range(8)
            ]
            for call, _ in sent[::2]:
                call.cancel()
            for _, came in sent[::2]:
                came.get()
            for seed, (_, came) in list(enumerate(sent))[1::2]:
                expected = alone.sample(program, n=1, seed=seed)
                assert came.get().as_numpy("samples").tobytes() == expected.tobytes()
    triton.until(0, "requests_pending", NAME)


def test_the_end(triton: Triton) -> None:
    """The last test of this file: the models close, and printed nothing that looks like a bug."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: by_grpc(triton), range(4)))
    assert triton.end() == 0
    said = "".join(triton.lines)
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert "was destroyed" not in said
