"""The bodies of requests: their fields, types and bounds."""

import asyncio
from typing import Annotated, Any, Final, Literal, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from difftool.serve.problems import Problem
from difftool.serve.settings import ServeSettings

MAX_PARTIAL_IMAGES: Final = 3  # of OpenAI
MAX_PREVIEWS: Final = 100
# A long list of what is no label would be a long list of errors; the first one says enough.
_Name = Annotated[str, Field(max_length=1000)]
_Labels = Annotated[list[int | _Name], Field(fail_fast=True)]
Values = str | list[Any] | NDArray[Any]  # a PNG in base64, nested lists, or an array
_Lists = Annotated[list[Any], Field(description="nested: a sample for all, or n of them")]
_Png = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
_Body = TypeVar("_Body", bound="Asked")


class Asked(BaseModel):
    """What is to be drawn. The names beside OpenAI's are those of `Request` and of diffusers."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,  # arrays
    )

    model: Annotated[str, Field(max_length=200)] | None = None
    n: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    first_sample: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    sampler: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    num_inference_steps: Annotated[int, Field(ge=1)] | None = None
    sampler_arguments: Annotated[dict[str, Any], Field(max_length=32)] = Field(default_factory=dict)
    labels: Annotated[int, Field(ge=0, lt=1 << 31)] | _Name | _Labels | None = None
    # Numbers beyond these leave float32 on the way, which would be an error of the server.
    guidance_scale: Annotated[float, Field(ge=-1000, le=1000)] = 1.0
    init: Values | None = None
    strength: Annotated[float, Field(gt=0, le=1)] | None = None
    known: Values | None = None
    mask: Values | None = None
    deadline: Annotated[float, Field(gt=0)] | None = None


class AskedSamples(Asked):
    """The body of /v1/samples: values are nested lists, in the model's data range."""

    init: _Lists | None = None
    known: _Lists | None = None
    mask: _Lists | None = None


class AskedTensors(Asked):
    """What a request of the v2 protocol asks for: values are arrays, in the model's data range."""

    init: NDArray[Any] | None = None
    known: NDArray[Any] | None = None
    mask: NDArray[Any] | None = None


class AskedPreviews(AskedTensors):
    """The same, of a client that reads a stream: previews of each sample, and then the samples."""

    previews: Annotated[int, Field(ge=0, le=MAX_PREVIEWS)] = 0


class AskedImages(Asked):
    """The body of /v1/images/generations: pictures are PNGs in base64."""

    init: _Png | None = None
    known: _Png | None = None
    mask: _Png | None = None
    prompt: str | None = None
    size: Annotated[str, Field(max_length=20)] | None = None
    response_format: Literal["b64_json"] | None = None
    user: str | None = None
    stream: bool | None = False
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES)] | None = None
    previews: Annotated[int, Field(ge=0, le=MAX_PREVIEWS)] | None = None


async def read(body: type[_Body], request: Request, settings: ServeSettings) -> _Body:
    """Read and check a body.

    Raises:
        Problem: as `read_body`, or it is no JSON by its content type. A page of another site cannot
            send that type, so it cannot use a server on loopback.
        pydantic.ValidationError: its content is wrong.
        ClientDisconnect: there is nobody any more.
    """
    if content_type(request) != "application/json":
        hint = "send content-type: application/json, as `curl --json` does"
        raise Problem(400, "not-json", "the body is not said to be JSON", hint)
    return body.model_validate_json(await read_body(request, settings))


def content_type(request: Request) -> str:
    """Return what a body is said to be, in lower case and without parameters; maybe nothing."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, settings: ServeSettings) -> bytes:
    """Read a body of at most `max_body` bytes that comes within `patience`.

    Raises:
        Problem: it is larger, which is seen while it comes, or slower.
        ClientDisconnect: there is nobody any more.
    """
    limit, seconds = settings.max_body, settings.patience
    said = request.headers.get("content-length", "")
    if said.isdecimal() and (len(said) > 18 or int(said) > limit):
        raise too_large(limit)
    data = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                data += chunk
                if len(data) > limit:
                    raise too_large(limit)
    except TimeoutError:
        text = f"the body did not come within {seconds:g} seconds"
        raise Problem(408, "slow-body", text, "send it faster, or try again") from None
    return bytes(data)


def too_large(limit: int) -> Problem:
    """Return the answer to a body of more than `limit` bytes."""
    return Problem(413, "body-too-large", f"a body has at most {limit} bytes", "send fewer")
