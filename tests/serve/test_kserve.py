"""The v2 protocol: what Triton's own client writes is read, and nothing that is said is trusted."""

import gzip
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import difftool
from difftool.diffusion.features import Feature
from difftool.diffusion.samplers import ddim
from difftool.runtime import Model, edits
from difftool.serve import ServeSettings
from tests.serve.conftest import client_of

tensors = pytest.importorskip("difftool.serve.tensors")

INFER = "/v2/models/digits/infer"
HEADER = "Inference-Header-Content-Length"
SHORT = {"sampler": "ddim", "num_inference_steps": 2, "seed": 7}
LIMIT = 1 << 20


def alone(model: Model, *asked: Any, **fields: Any) -> Any:
    """The samples as they are drawn alone, one at a time."""
    return Model(model.bundle, model.backend, max_batch=1).sample(*asked, **fields)


def tensor(name: str, values: Any, datatype: str = "INT64", **changed: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(values)], "datatype": datatype, "data": values, **changed}


def drawn(answer: Any) -> Any:
    """Return the samples of an answer, in JSON or bytes."""
    assert answer.status_code == 200, answer.text
    size = answer.headers.get(HEADER)
    said = json.loads(answer.content[: size and int(size)])
    (output,) = said["outputs"]
    assert (output["name"], output["datatype"]) == ("samples", "FP32")
    if size is None:
        return np.array(output["data"], np.float32).reshape(output["shape"])
    behind = answer.content[int(size) :]
    assert output["parameters"] == {"binary_data_size": len(behind)}
    return np.frombuffer(behind, "<f4").reshape(output["shape"])


def line_of(answer: Any) -> str:
    """Return the error of an answer, in the only shape that v2 clients read."""
    said = answer.json()
    assert set(said) == {"error"}
    assert isinstance(said["error"], str)
    assert "x-request-id" in answer.headers
    return str(said["error"])


def test_what_is_served(digits: Model) -> None:
    client = client_of(digits=digits)
    said = client("GET", "/v2").json()
    assert said == {
        "name": "difftool",
        "version": difftool.__version__,
        "extensions": ["binary_tensor_data"],
    }
    assert client("GET", "/v2/health/live").json() == {"live": True}
    assert client("GET", "/v2/health/ready").json() == {"ready": True}
    assert client("GET", "/v2/models/digits/ready").json() == {"name": "digits", "ready": True}
    model = client("GET", "/v2/models/digits").json()
    assert model["outputs"] == [{"name": "samples", "datatype": "FP32", "shape": [-1, 1, 28, 28]}]
    assert {"name": "seed", "datatype": "UINT64", "shape": [1]} in model["inputs"]
    for name in ("init", "known", "mask"):
        assert {"name": name, "datatype": "FP32", "shape": [-1, 1, 28, 28]} in model["inputs"]
    assert 'route="/v2/models/{name}/ready",status="200"' in client("GET", "/metrics").text


def test_only_a_graph_that_keeps_values_lists_them(digits: Model) -> None:
    """The others refuse them."""

    class Plain:
        features = frozenset({Feature.NORMS})

        def __getattr__(self, name: str) -> Any:
            return getattr(digits.backend, name)

    plain = Model(digits.bundle, Plain(), max_batch=4)  # type: ignore[arg-type]
    client = client_of(plain=plain)
    inputs = client("GET", "/v2/models/plain").json()["inputs"]
    arrays = {each["name"] for each in inputs} & {"init", "known", "mask"}
    assert arrays == {"init"}


def test_probes_need_no_key(digits: Model) -> None:
    client = client_of(ServeSettings(keys=("k" * 16,)), digits=digits)
    for path, status in (("/v2/health/live", 200), ("/v2/health/ready", 200), ("/v2", 401)):
        assert client("GET", path).status_code == status
    assert line_of(client("GET", "/v2")).startswith("no key")


def test_a_server_that_ends_is_not_ready(digits: Model) -> None:
    client = client_of(digits=digits)
    client.application.service.draining = True
    for path in ("/v2/health/ready", "/v2/models/digits/ready"):
        answer = client("GET", path)
        assert (answer.status_code, line_of(answer)[:10]) == (503, "the server")
    assert client("GET", "/v2/health/live").status_code == 200


def test_fields_are_parameters_or_tensors(digits: Model) -> None:
    client = client_of(digits=digits)
    expected = alone(digits, ddim(digits.spec, steps=2, eta=0.5), n=2, seed=7)
    arguments = '{"eta": 0.5}'
    asked = {**SHORT, "n": 2, "labels": None, "sampler_arguments": arguments}
    answer = client.post(INFER, parameters=asked)
    assert drawn(answer).tobytes() == expected.tobytes()
    said = answer.json()
    assert said["model_name"] == "digits"
    assert said["id"] == answer.headers["x-request-id"]
    assert said["parameters"]["seed"] == 7
    assert said["parameters"]["program"].startswith("ddim(steps=2, eta=0.5")
    inputs = [
        tensor("n", [2], "UINT8"),
        tensor("seed", [7], "UINT64"),
        tensor("sampler", ["ddim"], "BYTES"),
        tensor("num_inference_steps", [[2]], "INT32", shape=[1, 1]),
        tensor("sampler_arguments", [arguments], "BYTES"),
        tensor("guidance_scale", [1], "FP32"),
    ]
    answer = client.post(INFER, inputs=inputs, id="mine", outputs=[{"name": "samples"}])
    assert answer.json()["id"] == "mine"
    assert drawn(answer).tobytes() == expected.tobytes()


def test_labels() -> None:
    kept = Path(__file__).parents[1] / "kept" / "bundle"  # points, with two classes
    model = difftool.load(kept, max_batch=4, threads=1)
    client = client_of(digits=model)
    fields = {"sampler": "ddim", "num_inference_steps": 3, "seed": 2**64 - 1, "n": 3}
    for labels in ([1, 0, 1], [1]):
        answer = client.post(INFER, parameters=fields, inputs=[tensor("labels", labels)])
        asked = {"n": 3, "seed": 2**64 - 1, "labels": labels if len(labels) > 1 else labels[0]}
        expected = alone(model, ddim(model.spec, steps=3), **asked)
        assert drawn(answer).tobytes() == expected.tobytes()


@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
def test_bytes_as_tritons_client_writes_them(digits: Model, packed: str | None) -> None:
    """The header counts what was there before it was packed."""
    triton = pytest.importorskip("tritonclient.http")
    values = {
        "seed": ("UINT64", np.array([7], np.uint64)),
        "sampler": ("BYTES", np.array(["ddim"], np.object_)),
        "num_inference_steps": ("INT32", np.array([2], np.int32)),
        "sampler_arguments": ("BYTES", np.array([b'{"eta": 0.5}'], np.object_)),
        "guidance_scale": ("FP16", np.array([1], np.float16)),
    }
    inputs = [of_triton(name, array, datatype) for name, (datatype, array) in values.items()]
    body, size = triton.InferenceServerClient.generate_request_body(inputs)
    headers = {HEADER: str(size)}
    if packed:
        body = gzip.compress(body) if packed == "gzip" else zlib.compress(body)
        headers["content-encoding"] = packed
    answer = client_of(digits=digits)("POST", INFER, content=body, headers=headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    expected = alone(digits, ddim(digits.spec, steps=2, eta=0.5), n=1, seed=7)
    assert drawn(answer).tobytes() == expected.tobytes()


def of_triton(name: str, array: Any, datatype: str) -> Any:
    triton = pytest.importorskip("tritonclient.http")
    found = triton.InferInput(name, array.shape, datatype)
    found.set_data_from_numpy(array)
    return found


START = np.linspace(-1, 1, 2 * 784, dtype=np.float32).reshape(2, 1, 28, 28)
HALF = (np.arange(784) < 392).astype(np.float32).reshape(1, 28, 28)


@pytest.mark.parametrize(
    ("datatype", "dtype"), [("FP32", np.float32), ("FP64", np.float64), ("FP16", np.float16)]
)
def test_arrays_to_start_from_and_to_keep(digits: Model, datatype: str, dtype: Any) -> None:
    """As Triton's client writes them, and as nested or flat numbers of JSON."""
    triton = pytest.importorskip("tritonclient.http")
    start = START.astype(dtype)
    known, strength = start[0][::-1].copy(), np.array([0.5])
    arrays = {"init": start, "known": known, "mask": HALF.astype(dtype)}
    inputs = [of_triton(name, array, datatype) for name, array in arrays.items()]
    inputs.append(of_triton("strength", strength, "FP64"))
    asked = {**SHORT, "n": 2}
    body, size = triton.InferenceServerClient.generate_request_body(inputs, parameters=asked)
    client = client_of(digits=digits)
    answer = client("POST", INFER, content=body, headers={HEADER: str(size)})
    edit = edits.inpaint(known, HALF)
    program = ddim(digits.spec.up_to(0.5), steps=2)
    fields = {"n": 2, "seed": 7, "init": start.astype(np.float32), "edit": edit}
    expected = alone(digits, program, **fields)
    assert drawn(answer).tobytes() == expected.tobytes()
    said = [
        {"name": name, "datatype": datatype, "shape": list(array.shape), "data": data}
        for name, array in arrays.items()
        for data in [array.tolist() if name == "init" else array.ravel().tolist()]
    ]
    answer = client.post(INFER, inputs=said, parameters={**asked, "strength": 0.5})
    assert drawn(answer).tobytes() == expected.tobytes()
    assert answer.json()["parameters"]["strength"] == 0.5


def array(name: str, values: Any, datatype: str = "FP32", **changed: Any) -> dict[str, Any]:
    """Return an input, with what it lacks if it alone is wrong."""
    values = np.asarray(values)
    shaped = {"shape": list(values.shape), "data": values.ravel().tolist(), **changed}
    return {"name": name, "datatype": datatype, **shaped}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ([array("init", START[0, 0])], "init: its shape is [28, 28]"),
        ([array("init", START[:1, :, :1])], "init: its shape is [1, 1, 1, 28]"),
        ([array("init", np.zeros((3, 1, 28, 28)))], "init: its shape is [3, 1, 28, 28]"),
        ([array("init", 0.0)], "init: its shape is []"),
        ([array("init", [], shape=[0, *[2**31] * 7])], "init"),
        ([array("init", HALF.astype(int), "INT32")], "send FP32"),
        ([array("init", ["a"] * 784, "BYTES", shape=[1, 28, 28])], "send FP32"),
        ([array("init", np.full((1, 28, 28), 1e39))], "other values than FP32"),
        ([array("init", START[0], data=[10**400] * 784)], "other values than FP32"),
        ([array("init", np.full((1, 28, 28), 7e4), "FP16")], "other values than FP16"),
        ([array("init", np.full((1, 28, 28), 1e39), "FP64")], "init: a number is not finite"),
        ([array("init", START[0]), array("init", START[0])], "two inputs"),
        ([array("mask", HALF)], "mask: there is no known"),
        ([array("known", START[0]), array("mask", 2 * HALF)], "mask: it has values outside"),
    ],
    ids=str,
)
def test_arrays_that_are_refused(digits: Model, changed: Any, said: str) -> None:
    before = digits.scheduler().counts.accepted
    started = any(each["name"] == "init" for each in changed)
    asked = {**SHORT, "n": 2, **({"strength": 0.5} if started else {})}
    answer = client_of(digits=digits).post(INFER, inputs=changed, parameters=asked)
    assert answer.status_code == 400, answer.text
    assert said in line_of(answer)
    assert digits.scheduler().counts.accepted == before


def test_a_poor_program_is_answered_with_a_warning(digits: Model) -> None:
    """As one word, since a parameter of the protocol holds no list."""
    client = client_of(digits=digits)
    asked = {"sampler": "ddim", "num_inference_steps": 2}
    said = client.post(INFER, parameters=asked).json()["parameters"]["warnings"]
    assert said.startswith("with so few steps, 2, each divides the noise by ")
    assert "warnings" not in client.post(INFER).json()["parameters"]


def test_arrays_are_no_parameters(digits: Model) -> None:
    answer = client_of(digits=digits).post(INFER, parameters={**SHORT, "init": "iVBORw0KGgo="})
    assert (answer.status_code, "there is no parameter 'init'" in line_of(answer)) == (400, True)


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
def test_bytes_that_are_not_finite(digits: Model, number: float) -> None:
    triton = pytest.importorskip("tritonclient.http")
    start = START[0].copy()
    start[0, 3, 4] = number
    inputs = [of_triton("init", start, "FP32"), of_triton("strength", np.array([0.5]), "FP64")]
    body, size = triton.InferenceServerClient.generate_request_body(inputs)
    answer = client_of(digits=digits)("POST", INFER, content=body, headers={HEADER: str(size)})
    assert (answer.status_code, "not finite" in line_of(answer)) == (400, True)


N = {"name": "n", "shape": [1], "datatype": "INT64"}
HUGE = {"shape": [2**31] * 8}
SIZED = {"parameters": {"binary_data_size": 8}}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"inputs": [tensor("n", [1]), tensor("n", [2])]}, "two inputs"),
        ({"inputs": [tensor("n", [1])], "parameters": {"n": 1}}, "an input and a parameter"),
        ({"inputs": [tensor("n", [1], "INT128")]}, "inputs"),
        ({"inputs": [tensor("n", [1], "BF16")]}, "inputs"),
        ({"inputs": [tensor("n", [1], **HUGE)]}, "has not the values of its shape"),
        ({"inputs": [tensor("n", [], **HUGE)]}, "has not the values of its shape"),
        ({"inputs": [tensor("n", [1], shape=[1] * 9)]}, "inputs"),
        ({"inputs": [tensor("n", [1], shape=[-1])]}, "inputs"),
        ({"inputs": [tensor("n", [1, [2]], shape=[2])]}, "other values than INT64"),
        ({"inputs": [tensor("n", [300], "UINT8")]}, "other values than UINT8"),
        ({"inputs": [tensor("n", [True])]}, "other values than INT64"),
        ({"inputs": [tensor("n", ["1"])]}, "other values than INT64"),
        ({"inputs": [tensor("n", [1], "BYTES")]}, "other values than BYTES"),
        ({"inputs": [tensor("n", [1], "BOOL")]}, "other values than BOOL"),
        ({"inputs": [tensor("n", [True], "BOOL")]}, "n: "),
        ({"inputs": [tensor("n", ["a"], "FP32")]}, "other values than FP32"),
        ({"inputs": [tensor("n", [1, 2])]}, "n: "),
        ({"inputs": [N]}, "where is n"),
        ({"inputs": [{**N, "data": [1], **SIZED}]}, "not those of the tensors"),
        ({"inputs": [{**N, **SIZED}]}, "not those of the tensors"),
        ({"inputs": [tensor("n", [1], parameters={"shared_memory_region": "a"})]}, "inputs"),
        ({"inputs": [tensor("x", [1])]}, "there is no input 'x'"),
        ({"inputs": [tensor("model", ["digits"], "BYTES")]}, "there is no input 'model'"),
        ({"parameters": {"timeout": 5}}, "there is no parameter 'timeout'"),
        ({"parameters": {"n": 0}}, "n: "),
        ({"parameters": {"n": {}}}, "parameters"),
        ({"parameters": {"sampler_arguments": "{"}}, "not JSON"),
        ({"parameters": {"sampler_arguments": "NaN"}}, "not JSON"),
        ({"parameters": {"sampler_arguments": "[1]"}}, "sampler_arguments"),
        ({"parameters": {"sampler": "none"}}, "none"),
        ({"outputs": [{"name": "other"}]}, "outputs"),
        ({"outputs": [{"name": "samples"}] * 2}, "outputs"),
        ({"outputs": [{"name": "samples", "parameters": {"classification": 3}}]}, "outputs"),
        ({"extra": 1}, "extra"),
    ],
    ids=str,
)
def test_what_is_refused(digits: Model, asked: dict[str, Any], said: str) -> None:
    answer = client_of(digits=digits).post(INFER, **asked)
    assert answer.status_code == 400, answer.text
    assert said in line_of(answer)


@pytest.mark.parametrize(
    ("sent", "behind", "header"),
    [
        ({**N, **SIZED}, b"", None),
        ({**N, **SIZED}, bytes(7), None),
        ({**N, **SIZED}, bytes(9), None),
        ({**N, **SIZED, **HUGE}, bytes(8), None),
        ({**N, "parameters": {"binary_data_size": 2**62}}, bytes(8), None),
        ({**N, "parameters": {"binary_data_size": -1}}, bytes(8), None),
        ({**N, **SIZED, "datatype": "INT32"}, bytes(8), None),
        ({**N, **SIZED, "datatype": "BYTES"}, b"\xff\xff\xff\xff" + bytes(4), None),
        ({**N, **SIZED, "datatype": "BYTES"}, b"\4\0\0\0" + b"\xff" * 4, None),
        ({**N, **SIZED, "datatype": "BYTES", "shape": [3]}, bytes(8), None),
        ({**N, **SIZED, "datatype": "BYTES"}, bytes(8), None),
        ({**N, "data": [1]}, bytes(8), None),
        ({**N, **SIZED}, bytes(8), "1"),
        ({**N, **SIZED}, bytes(8), "-1"),
        ({**N, **SIZED}, bytes(8), "+90"),
        ({**N, **SIZED}, bytes(8), "9" * 30),
        ({**N, **SIZED}, bytes(8), "1000"),
        ({**N, **SIZED}, bytes(8), ""),
    ],
    ids=str,
)
def test_bytes_that_lie(
    digits: Model, sent: dict[str, Any], behind: bytes, header: str | None
) -> None:
    text = json.dumps({"inputs": [sent]}).encode()
    headers = {HEADER: str(len(text)) if header is None else header}
    answer = client_of(digits=digits)("POST", INFER, content=text + behind, headers=headers)
    assert answer.status_code == 400, answer.text
    line_of(answer)


ZIPPED = gzip.compress(b"{}", mtime=0)  # all workers of a test run must see the same bytes


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", b"{}"),
        ("", b"{}"),
        ("gzip", b"{}"),
        ("gzip", zlib.compress(b"{}")),
        ("deflate", ZIPPED),
        ("gzip", ZIPPED[:-1]),
        ("gzip", ZIPPED + b"more"),
        ("gzip, gzip", gzip.compress(ZIPPED, mtime=0)),
    ],
)
def test_what_cannot_be_unpacked(digits: Model, encoding: str, body: bytes) -> None:
    headers = {"content-encoding": encoding, "content-type": "application/json"}
    answer = client_of(digits=digits)("POST", INFER, content=body, headers=headers)
    assert (answer.status_code, line_of(answer)[:3] != "") == (400, True)


def test_a_bomb_ends_at_the_limit(digits: Model) -> None:
    packed = gzip.compress(bytes(64 * LIMIT))
    assert len(packed) < LIMIT // 10
    headers = {"content-encoding": "gzip"}
    answer = client_of(digits=digits)("POST", INFER, content=packed, headers=headers)
    assert (answer.status_code, "at most" in line_of(answer)) == (413, True)
    tracemalloc.start()
    with pytest.raises(Exception, match="at most"):
        tensors.unpacked(packed, "gzip", LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * LIMIT
    fits = gzip.compress(bytes(LIMIT))
    assert len(tensors.unpacked(fits, "gzip", LIMIT)) == LIMIT


def test_errors_are_lines(digits: Model) -> None:
    client = client_of(digits=digits)
    for method, path, status in (
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", INFER, 405),
    ):
        answer = client(method, path, json={})
        assert answer.status_code == status, path
        line_of(answer)
    answer = client("POST", INFER, content=b"{")
    assert (answer.status_code, line_of(answer)[:12]) == (400, "the body is ")
    answer = client.post(INFER, parameters={**SHORT, "deadline": 1e-9})
    assert (answer.status_code, "deadline" in line_of(answer)) == (504, True)
    answer = client.post(INFER, parameters={**SHORT, "n": 65})
    assert answer.status_code == 422


def test_a_page_of_another_site_cannot_ask(digits: Model) -> None:
    """It may send a plain text, or no type at all; its browser adds the origin to both."""
    client = client_of(digits=digits)
    body = json.dumps({"parameters": SHORT}).encode()
    origin = {"origin": "https://elsewhere.example"}
    for headers in (origin, {"content-type": "text/plain"}, {"content-type": "a/b", **origin}):
        assert client("POST", INFER, content=body, headers=headers).status_code == 400
    for headers in ({}, {"content-type": "application/json", **origin}):
        assert client("POST", INFER, content=body, headers=headers).status_code == 200
