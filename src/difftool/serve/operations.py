"""What each route takes and answers, with examples, for /openapi.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from difftool.serve import answers, kserve, page
from difftool.serve.asked import AskedImages, AskedSamples
from difftool.version import __version__

Json = dict[str, Any]

JSON: Final = "application/json"
REF: Final = "#/components/schemas/{model}"
_BYTES: Final = "application/octet-stream"
_STREAM: Final = "text/event-stream"
_DRAWS: Final = (400, 401, 404, 408, 413, 422, 429, 499, 500, 503, 504)
_RECORD: Final[Json] = {
    "created": 1790000000,
    "bundle": "cbf84fe5" * 8,
    "program": "ddim(steps=20, eta=0.0, spacing='trailing')",
    "seed": 7,
    "first_sample": 0,
    "n": 1,
    "seconds": 0.25,
    "queue_seconds": 0.01,
}
_JSON_SIZE: Final[Json] = {
    "description": "Bytes of the JSON, unpacked; all of the body without it",
    "schema": {"type": "integer", "minimum": 0},
}
_ID_SENT: Final[Json] = {
    "in": "header",
    "name": "x-request-id",
    "description": "An id of up to 64 letters, digits and ._- for this request; else it gets one",
    "schema": {"type": "string"},
    "example": "my-request-1",
}
_IF_NONE_MATCH: Final[Json] = {
    "in": "header",
    "name": "if-none-match",
    "description": "The entity tags of what the client has, with commas between them",
    "schema": {"type": "string"},
}
_INPUTS: Final[list[Json]] = [
    {"name": "n", "shape": [1], "datatype": "INT64", "data": [2]},
    {"name": "sampler", "shape": [1], "datatype": "BYTES", "data": ["ddim"]},
    {"name": "num_inference_steps", "shape": [1], "datatype": "INT64", "data": [20]},
]


@dataclass(frozen=True)
class Operation:
    """A method of a path: its answer by content type, and what else may come."""

    summary: str
    answer: Mapping[str, Json]
    errors: tuple[int, ...] = (401,)
    body: Mapping[str, Json] = field(default_factory=dict)
    headers: Mapping[str, Json] = field(default_factory=dict)
    parameters: tuple[Json, ...] = ()
    open: bool = False
    tagged: bool = False
    """Its answer has an entity tag; a client that has that answer gets 304."""


def operations(models: Sequence[str]) -> dict[tuple[str, str], Operation]:
    """Return what is at each path, by method; examples name the first model."""
    model = models[0]
    named = _in_path("name", {"enum": [*models]}, model)
    fields: Json = {"sampler": "ddim", "num_inference_steps": 20, "seed": 7}
    asked: Json = {"model": model, **fields}
    record: Json = {"id": "my-request-1", "model": model, **_RECORD, "warnings": []}
    size: Json = {"size": "28x28", "output_format": "png"}
    image: Json = {"b64_json": "iVBORw0KGgo="}
    completed = {"type": "image_generation.completed", **record, **size, **image}
    event = {**completed, "created_at": record["created"], "index": 0}
    card: Json = {
        "id": model,
        "object": "model",
        "created": 0,
        "owned_by": "difftool",
        "bundle": record["bundle"],
        "shipped": None,
        "shape": [1, 28, 28],
        "images": True,
        "classes": 0,
        "class_names": [],
        "null_label": False,
        "features": ["known", "norms"],
        "precision": "fp32",
        "program": record["program"],
        "default": {"sampler": "ddim", "arguments": {"steps": 20}},
        "samplers": ["ddim", "ddpm"],
    }
    sampler: Json = {
        "id": "ddim",
        "object": "sampler",
        "source": "Song et al. 2021a, eq. 12",
        "arguments": {"eta": {"type": "float", "default": 0.0}},
        "description": "DDIM",
    }
    load = {"waiting": 0, "running": 2, "slots": 16, "max_batch": 4, "steps": 9, "sample_steps": 18}
    status: Json = {
        "object": "status",
        "draining": False,
        "seconds": 60.5,
        "limits": {"n": 64, "num_inference_steps": 2000},
        "models": [{"id": model, **load}],
    }
    inferred: Json = {
        "id": record["id"],
        "model_name": model,
        "parameters": _RECORD,
        "outputs": [{"name": "samples", "datatype": "FP32", "shape": [1, 2], "data": [0.5, -0.25]}],
    }
    return {
        ("POST", "/v1/images/generations"): Operation(
            "Draw images: PNG in base64, or a stream of events",
            {
                JSON: media(answers.Images, {**record, **size, "data": [image]}),
                _STREAM: _events(event),
            },
            _DRAWS,
            {
                JSON: {
                    "schema": ref(AskedImages),
                    "examples": {
                        "some": {"value": {**asked, "n": 2}},
                        "stream": {"value": {**asked, "stream": True, "partial_images": 2}},
                    },
                }
            },
            parameters=(_ID_SENT,),
        ),
        ("POST", "/v1/samples"): Operation(
            "Draw arrays: JSON, or npy if that is accepted",
            {
                JSON: media(
                    answers.Samples, {**record, "shape": [1, 2], "samples": [[0.5, -0.25]]}
                ),
                _BYTES: {"schema": {"description": "float32 [n, *shape] as npy"}},
            },
            _DRAWS,
            {JSON: media(AskedSamples, {**asked, "sampler_arguments": {"eta": 0.5}})},
            {"x-seed": {"required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}}},
            (_ID_SENT,),
        ),
        ("GET", "/v1/models"): Operation(
            "List the models",
            {JSON: media(answers.ModelCards, {"object": "list", "data": [card]})},
        ),
        ("GET", "/v1/models/{name}"): Operation(
            "Describe a model",
            {JSON: media(answers.ModelCard, card)},
            (401, 404),
            parameters=(named,),
        ),
        ("GET", "/v1/samplers"): Operation(
            "List the samplers, with the types and defaults of their arguments",
            {JSON: media(answers.SamplerCards, {"object": "list", "data": [sampler]})},
        ),
        ("GET", "/v1/status"): Operation(
            "Tell the limits of a request, and what each model has to do",
            {JSON: media(answers.Status, status)},
        ),
        ("DELETE", "/v1/requests/{id}"): Operation(
            "Cancel a request",
            {JSON: media(answers.Cancelled, {"id": "my-request-1", "cancelled": True})},
            (401, 404),
            parameters=(_in_path("id", {"type": "string", "minLength": 1}, "my-request-1"),),
        ),
        ("GET", "/health"): Operation(
            "Tell if the process lives",
            {JSON: media(answers.Health, {"status": "ok"})},
            (),
            open=True,
        ),
        ("GET", "/ready"): Operation(
            "Tell if it can draw",
            {JSON: media(answers.Ready, {"status": "ready"})},
            (503,),
            open=True,
        ),
        ("GET", "/metrics"): Operation(
            "Count answers, requests and samples, for Prometheus",
            _text("text/plain"),
        ),
        ("GET", "/openapi.json"): Operation(
            "Describe all routes", {JSON: {"schema": {"type": "object"}}}
        ),
        ("GET", "/"): Operation(
            "Show a page to draw with",
            _text("text/html"),
            (),
            parameters=(_IF_NONE_MATCH,),
            open=True,
            tagged=True,
        ),
        ("GET", "/page/{file}"): Operation(
            "Send a part of the page",
            {**_text("text/css"), **_text("text/javascript")},
            (404,),
            parameters=(_in_path("file", {"enum": [*page.FILES]}, "style.css"), _IF_NONE_MATCH),
            open=True,
            tagged=True,
        ),
        ("GET", "/v2"): Operation(
            "Name the server and the extensions of the v2 protocol that it speaks",
            {
                JSON: media(
                    answers.ServerMetadata,
                    {
                        "name": "difftool",
                        "version": __version__,
                        "extensions": ["binary_tensor_data"],
                    },
                )
            },
        ),
        ("GET", "/v2/health/live"): Operation(
            "Tell if the process lives",
            {JSON: media(answers.ServerLive, {"live": True})},
            (),
            open=True,
        ),
        ("GET", "/v2/health/ready"): Operation(
            "Tell if it can draw",
            {JSON: media(answers.ServerReady, {"ready": True})},
            (503,),
            open=True,
        ),
        ("GET", "/v2/models/{name}"): Operation(
            "Describe the inputs and the output of a model",
            {
                JSON: media(
                    answers.ModelMetadata, kserve.metadata(model, card["shape"], card["features"])
                )
            },
            (401, 404),
            parameters=(named,),
        ),
        ("GET", "/v2/models/{name}/ready"): Operation(
            "Tell if a model can draw",
            {JSON: media(answers.ModelReady, {"name": model, "ready": True})},
            (401, 404, 503),
            parameters=(named,),
        ),
        ("POST", "/v2/models/{name}/infer"): Operation(
            "Draw a tensor: JSON, or JSON and bytes",
            {
                JSON: media(answers.Inferred, inferred),
                _BYTES: {"schema": {"description": "JSON, and the bytes of the samples behind"}},
            },
            _DRAWS,
            {
                JSON: {
                    "schema": ref(kserve.AskedInfer),
                    "examples": {
                        "parameters": {"value": {"parameters": fields}},
                        "tensors": {"value": {"inputs": _INPUTS}},
                    },
                },
                _BYTES: {"schema": {"description": "the same JSON, and the bytes of its inputs"}},
            },
            {kserve.HEADER: {**_JSON_SIZE, "description": "Comes with bytes alone"}},
            (
                _ID_SENT,
                named,
                {"in": "header", "name": kserve.HEADER, **_JSON_SIZE},
                {
                    "in": "header",
                    "name": "content-encoding",
                    "schema": {"enum": ["gzip", "deflate", "identity"]},
                },
            ),
        ),
    }


def _events(completed: Json) -> Json:
    """Return what a stream is: each event has JSON in its data."""
    kinds = (answers.PartialImage, answers.CompletedImage, answers.ErrorAnswer)
    return {
        "description": "Up to `partial_images` previews of each image, then all images; or at any "
        "time an event `error`, which is the last. Comments keep the connection open.",
        "itemSchema": {
            "type": "object",
            "required": ["event", "data"],
            "properties": {
                "event": {
                    "enum": [
                        "image_generation.partial_image",
                        "image_generation.completed",
                        "error",
                    ]
                },
                "data": {
                    "type": "string",
                    "contentMediaType": JSON,
                    "contentSchema": {"anyOf": [ref(kind) for kind in kinds]},
                },
            },
        },
        "examples": {"completed": {"dataValue": [{"event": completed["type"], "data": completed}]}},
    }


def media(model: type[BaseModel], example: Json) -> Json:
    return {"schema": ref(model), "example": example}


def ref(model: type[BaseModel]) -> Json:
    return {"$ref": REF.format(model=model.__name__)}


def _text(kind: str) -> Json:
    return {kind: {"schema": {"type": "string"}}}


def _in_path(name: str, schema: Json, example: str) -> Json:
    return {"in": "path", "name": name, "required": True, "schema": schema, "example": example}
