"""What /openapi.json says: all routes, bodies and answers, from the models of pydantic.

OpenAPI 3.2 (https://spec.openapis.org/oas/v3.2.0) is the first that describes streams of events.
"""

from typing import Final, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from difftool.diffusion.samplers import SAMPLERS
from difftool.serve import answers, kserve
from difftool.serve.asked import AskedImages, AskedSamples
from difftool.serve.fields import ARRAYS, INPUTS
from difftool.serve.operations import JSON, REF, Json, Operation, media, operations
from difftool.serve.service import Service
from difftool.version import __version__

_KEY: Final = "key"  # the name of the security scheme
_ID: Final[Json] = {
    "description": "What the client sent in this header, or a new one",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
}
_RETRY_AFTER: Final[Json] = {
    "retry-after": {
        "description": "Seconds",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    }
}
_BEARER: Final[Json] = {"www-authenticate": {"required": True, "schema": {"const": "Bearer"}}}


class _Failure(NamedTuple):
    """A status that is an error, with the error of an example."""

    meaning: str
    code: str
    message: str
    hint: str


_FAILURES: Final = {
    400: _Failure("The body or a field is wrong", "size", "digits draws 28x28", "leave size out"),
    401: _Failure("No key", "no-key", "no key, or a wrong one", "authorization: Bearer KEY"),
    404: _Failure("Not there", "no-such-model", "there is no such model", "one of: digits"),
    408: _Failure("Too slow", "slow-body", "the body did not come within 30 seconds", "try again"),
    413: _Failure("Too large", "body-too-large", "a body has at most 1048576 bytes", "send fewer"),
    422: _Failure("Over a limit", "too-much", "n: 65 are more than 64", "ask for less at a time"),
    429: _Failure("Busy", "busy", "too many streams are open", "try again later"),
    499: _Failure("Cancelled", "cancelled", "the request was cancelled", ""),
    500: _Failure("Failed", "failed", "the server failed: RuntimeError", "see its log"),
    503: _Failure("Not ready", "not-ready", "the server is going to end", "try again later"),
    504: _Failure("The deadline passed", "deadline", "the deadline passed", "allow more time"),
}
_ETAG: Final[Json] = {
    "etag": {
        "description": "Entity tag, to be sent back as if-none-match",
        "required": True,
        "schema": {"type": "string"},
    }
}
_HEADERS: Final[dict[int, Json]] = {401: _BEARER, 429: _RETRY_AFTER, 503: _RETRY_AFTER}


def describe(service: Service) -> Json:
    """Return the description of a server; its examples name the server's first model."""
    paths: dict[str, Json] = {}
    for (method, path), operation in operations(list(service.models)).items():
        said = _operation(operation, path, secret=bool(service.settings.keys))
        paths.setdefault(path, {})[method.lower()] = {**said, "operationId": _name(method, path)}
    return {
        "openapi": "3.2.0",
        "info": {
            "title": "difftool",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Samples of diffusion and score-based models. Any other route is 404, "
            "and any other method 405, with a body as of the other errors.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(service),
            "headers": {"RequestId": _ID},
            "securitySchemes": {_KEY: {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, path: str, *, secret: bool) -> Json:
    error = answers.LineAnswer if path.startswith("/v2") else answers.ErrorAnswer
    id: Json = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
    headers = {**id, **(_ETAG if operation.tagged else {})}
    unchanged = {"304": {"description": "The client has it", "headers": headers}}
    said: Json = {
        "summary": operation.summary,
        "parameters": list(operation.parameters),
        "responses": {
            "200": {
                "description": "OK",
                "headers": {**headers, **operation.headers},
                "content": operation.answer,
            },
            **(unchanged if operation.tagged else {}),
            **{str(status): _failure(status, error) for status in operation.errors},
        },
    }
    if operation.body:
        said["requestBody"] = {"required": True, "content": operation.body}
    if secret and not operation.open:
        said["security"] = [{_KEY: []}]
    return said


def _failure(status: int, error: type[BaseModel]) -> Json:
    meaning, code, message, hint = _FAILURES[status]
    said: Json = {"code": code, "message": message, "hint": hint, "param": None}
    example: Json = {"error": {**said, "request_id": "my-request-1"}}
    if error is answers.LineAnswer:
        example = {"error": f"{message}: {hint}" if hint else message}
    return {
        "description": meaning,
        "headers": {
            "x-request-id": {"$ref": "#/components/headers/RequestId"},
            **_HEADERS.get(status, {}),
        },
        "content": {JSON: media(error, example)},
    }


def _name(method: str, path: str) -> str:
    """Return a name for generated clients, such as post_v1_samples."""
    words = path.replace("{", "").replace("}", "").replace(".", "_").split("/")
    return "_".join([method.lower(), *filter(None, words)])


def _schemas(service: Service) -> Json:
    """Return the schemas of all bodies, by the names of their models."""
    sent = (AskedImages, AskedSamples, kserve.AskedInfer)
    answered = (
        *(answers.Images, answers.Samples, answers.PartialImage, answers.CompletedImage),
        *(answers.ModelCard, answers.ModelCards, answers.SamplerCards, answers.Status),
        *(answers.Cancelled, answers.Health, answers.Ready),
        *(answers.ServerMetadata, answers.ServerLive, answers.ServerReady, answers.ModelReady),
        *(answers.ModelMetadata, answers.Inferred, answers.ErrorAnswer, answers.LineAnswer),
    )
    _, found = models_json_schema(
        [(each, "validation") for each in (*sent, *answered)], ref_template=REF
    )
    schemas: Json = found["$defs"]
    limits = service.settings
    # What this server draws, which the models of the bodies do not know.
    narrower: dict[str, Json] = {
        "model": {"enum": list(service.models)},
        "n": {"maximum": limits.max_n},
        "num_inference_steps": {"maximum": limits.max_steps},
        "sampler": {"enum": list(SAMPLERS)},
    }
    for model in (AskedImages, AskedSamples):
        properties = schemas[model.__name__]["properties"]
        for name, more in narrower.items():
            properties[name].get("anyOf", [properties[name]])[0].update(more)
    schemas["AskedInfer"]["properties"]["parameters"] = _parameters(schemas["AskedSamples"])
    schemas["Tensor"]["properties"]["name"] = {"enum": [*INPUTS, *ARRAYS]}
    return schemas


def _parameters(samples: Json) -> Json:
    """Return the schema of the parameters of v2, which are scalars, from that of /v1/samples."""
    fields = {name: samples["properties"][name] for name in INPUTS}
    fields["labels"] = {"type": ["integer", "string"], "minimum": 0, "maxLength": 1000}
    fields["sampler_arguments"] = {"type": "string", "contentMediaType": JSON}
    fields[kserve.BINARY] = {"type": "boolean"}
    return {"type": ["object", "null"], "properties": fields, "additionalProperties": False}
