"""The bodies of requests: their fields, types and bounds."""

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from difftool.serve.problems import Problem

MAX_PARTIAL_IMAGES: Final = 3  # of OpenAI
MAX_PREVIEWS: Final = 100
_Body = TypeVar("_Body", bound="Asked")


class Asked(BaseModel):
    """What is to be drawn. The names beside OpenAI's are those of `Request` and of diffusers."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    model: Annotated[str, Field(max_length=200)] | None = None
    n: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    first_sample: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    sampler: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    num_inference_steps: Annotated[int, Field(ge=1)] | None = None
    sampler_arguments: Annotated[dict[str, Any], Field(max_length=32)] = Field(default_factory=dict)
    labels: Annotated[int, Field(ge=0, lt=1 << 31)] | list[int] | None = None
    guidance_scale: float = 1.0
    deadline: Annotated[float, Field(gt=0)] | None = None


class AskedSamples(Asked):
    """The body of /v1/samples."""


class AskedImages(Asked):
    """The body of /v1/images/generations."""

    prompt: str | None = None
    size: Annotated[str, Field(max_length=20)] | None = None
    response_format: Literal["b64_json"] | None = None
    user: str | None = None
    stream: bool | None = False
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES)] | None = None
    previews: Annotated[int, Field(ge=0, le=MAX_PREVIEWS)] | None = None


async def read(body: type[_Body], request: Request, limit: int) -> _Body:
    """Read and check a body of at most `limit` bytes.

    Raises:
        Problem: it is larger, which is seen while it comes, or no JSON by its content type. A
            page of another site cannot send that type, so it cannot use a server on loopback.
        pydantic.ValidationError: its content is wrong.
        ClientDisconnect: there is nobody any more.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        hint = "send content-type: application/json, as `curl --json` does"
        raise Problem(400, "not-json", "the body is not said to be JSON", hint)
    large = Problem(413, "body-too-large", f"a body has at most {limit} bytes", "send fewer")
    said = request.headers.get("content-length", "")
    if said.isdecimal() and (len(said) > 18 or int(said) > limit):
        raise large
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise large
    return body.model_validate_json(bytes(data))
