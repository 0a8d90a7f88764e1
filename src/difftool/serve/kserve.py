"""The Open Inference Protocol v2, as clients of KServe and Triton speak it.

A request's fields are those of /v1/samples. Each is an input, or a parameter of the request.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from difftool.diffusion.features import Feature
from difftool.serve.asked import AskedTensors, content_type, read_body
from difftool.serve.fields import ARRAYS, INPUTS
from difftool.serve.problems import Problem
from difftool.serve.service import Drawn, Service
from difftool.serve.settings import ServeSettings
from difftool.serve.tensors import Tensor, split, unpacked, values
from difftool.version import __version__

Floats = NDArray[np.float32]

HEADER: Final = "Inference-Header-Content-Length"
_OUTPUT: Final = "samples"
_BYTES: Final = "application/octet-stream"
BINARY: Final = "binary_data_output"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class OutputParameters(_Body):
    """How an output is sent."""

    binary_data: bool = False


class Output(_Body):
    """An output that is wanted; there is one."""

    name: Literal["samples"]
    parameters: OutputParameters | None = None


_Parameter = bool | int | float | str | None


class AskedInfer(_Body):
    """The body of /v2/models/{name}/infer, or the JSON that it begins with."""

    id: Annotated[str, Field(max_length=100)] | None = None
    parameters: Annotated[dict[str, _Parameter], Field(max_length=32)] | None = None
    inputs: Annotated[list[Tensor], Field(max_length=32)] = Field(default_factory=list)
    outputs: Annotated[list[Output], Field(max_length=1)] | None = None


async def server(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer GET /v2."""
    said = {"name": "difftool", "version": __version__, "extensions": ["binary_tensor_data"]}
    await JSONResponse(said)(scope, receive, send)


async def live(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer GET /v2/health/live."""
    await JSONResponse({"live": True})(scope, receive, send)


async def ready(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer GET /v2/health/ready."""
    service.require_ready()
    await JSONResponse({"ready": True})(scope, receive, send)


async def model(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer GET /v2/models/{name}."""
    name = service.find(scope["path_params"]["name"])
    found = service.models[name]
    said = metadata(name, found.spec.shape, found.backend.features)
    await JSONResponse(said)(scope, receive, send)


def metadata(name: str, shape: Sequence[int], features: Collection[str]) -> dict[str, Any]:
    """Return what the protocol says of a model whose samples have a shape.

    Only a step graph with that feature keeps known values.
    """
    arrays = ARRAYS if Feature.KNOWN in features else ARRAYS[:1]
    return {
        "name": name,
        "platform": "difftool",
        "inputs": [
            *(_tensor(field, *kind) for field, kind in INPUTS.items()),
            *(_tensor(field, "FP32", [-1, *shape]) for field in arrays),
        ],
        "outputs": [_tensor(_OUTPUT, "FP32", [-1, *shape])],
    }


async def model_ready(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer GET /v2/models/{name}/ready."""
    name = service.find(scope["path_params"]["name"])
    service.require_ready((name,))
    await JSONResponse({"name": name, "ready": True})(scope, receive, send)


async def infer(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer POST /v2/models/{name}/infer."""
    asked, fields = await _read(Request(scope, receive), service.settings)
    wanted = AskedTensors.model_validate({**fields, "model": scope["path_params"]["name"]})
    async with service.drawing(wanted, scope["request_id"]) as drawn:
        scope["drawn"] = drawn
        samples = await drawn.result(receive)
        answer = await run_in_threadpool(_answer, asked, drawn, samples)
    await answer(scope, receive, send)


ROUTES: Final = (
    ("GET", "/v2", server),
    ("GET", "/v2/health/live", live),
    ("GET", "/v2/health/ready", ready),
    ("GET", "/v2/models/{name}", model),
    ("GET", "/v2/models/{name}/ready", model_ready),
    ("POST", "/v2/models/{name}/infer", infer),
)


async def _read(request: Request, settings: ServeSettings) -> tuple[AskedInfer, dict[str, Any]]:
    """Return the JSON of a body, and the fields that it and the bytes behind it have.

    Triton's client names no type. Neither need a page of another site, but its browser says where
    the page is from.
    """
    kind, headers = content_type(request), request.headers
    if kind not in ("application/json", _BYTES) and (kind or "origin" in headers):
        raise Problem(400, "not-json", f"the body is {kind[:40]}", f"send JSON, or {_BYTES}")
    body = await read_body(request, settings)

    def parse() -> tuple[AskedInfer, dict[str, Any]]:
        encoding = headers.get("content-encoding", "identity").strip().lower()
        said, behind = split(unpacked(body, encoding, settings.max_body), headers.get(HEADER))
        asked = AskedInfer.model_validate_json(said)
        return asked, _fields(asked, behind)

    return await run_in_threadpool(parse)


def _wants_binary(asked: AskedInfer) -> bool:
    """Tell if the samples are sent as bytes: what their output says, or else the request."""
    if asked.outputs and asked.outputs[0].parameters:
        return asked.outputs[0].parameters.binary_data
    return bool((asked.parameters or {}).get(BINARY, False))


def _fields(asked: AskedInfer, behind: bytes) -> dict[str, Any]:
    """Return the fields of a request by name, from its inputs and its parameters."""
    _require_known("input", [each.name for each in asked.inputs], [*INPUTS, *ARRAYS])
    parameters = {name: each for name, each in (asked.parameters or {}).items() if name != BINARY}
    return gather(values(asked.inputs, behind, ARRAYS), parameters)


def gather(
    inputs: Mapping[str, Any], parameters: Mapping[str, Any], known: Sequence[str] = (*INPUTS,)
) -> dict[str, Any]:
    """Return the fields of a request by name; each is an input or a parameter.

    Problem if one is both, if a parameter is not `known`, or if a text that should be JSON is not.
    """
    _require_known("parameter", parameters, known)
    if twice := inputs.keys() & parameters.keys():
        text = f"{min(twice)} is an input and a parameter"
        raise Problem(400, "invalid-field", text, "give it once")
    found = {**inputs, **parameters}
    arguments = found.get("sampler_arguments")
    if isinstance(arguments, str):
        try:
            found["sampler_arguments"] = from_json(arguments, allow_inf_nan=False)
        except ValueError:
            text = "sampler_arguments: the text is not JSON"
            raise Problem(400, "invalid-field", text, 'such as {"eta": 0.5}') from None
    return found


def _require_known(kind: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            text = f"there is no {kind} {name[:40]!r}"
            raise Problem(400, "invalid-field", text, f"one of: {', '.join(known)}")


def _answer(asked: AskedInfer, drawn: Drawn, samples: Floats) -> Response:
    binary, record = _wants_binary(asked), drawn.record()
    data = samples.astype("<f4", copy=False).tobytes() if binary else b""
    sent = {"parameters": {"binary_data_size": len(data)}} if binary else _listed(samples)
    id = record.pop("id")
    if warnings := record.pop("warnings"):
        record["warnings"] = "; ".join(warnings)  # a parameter of the protocol holds no list
    said = {
        "id": id if asked.id is None else asked.id,
        "model_name": record.pop("model"),
        "parameters": record,
        "outputs": [{**_tensor(_OUTPUT, "FP32", list(samples.shape)), **sent}],
    }
    text = json.dumps(said, allow_nan=False).encode()
    if not binary:
        return Response(text, media_type="application/json")
    return Response(text + data, headers={HEADER: str(len(text))}, media_type=_BYTES)


def _listed(samples: Floats) -> dict[str, Any]:
    return {"data": samples.ravel().tolist()}


def _tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}
