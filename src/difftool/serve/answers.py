"""The bodies of answers, as /openapi.json describes them. Tests hold what is sent to them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Png = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Error(_Answer):
    """What went wrong, and what to do."""

    code: Annotated[str, Field(description="a word that stays when messages change")]
    message: str
    hint: str
    param: Annotated[str | None, Field(description="the field that is wrong")]
    request_id: str


class ErrorAnswer(_Answer):
    """Every error, but those of v2."""

    error: Error


class LineAnswer(_Answer):
    """Every error of the routes under /v2."""

    error: str


class _Drawn(_Answer):
    """What is needed to draw the samples again, and the time that they took."""

    created: Annotated[int, Field(description="seconds since 1970")]
    bundle: Annotated[str, Field(description="digest of the bundle")]
    program: str
    seed: Annotated[int, Field(ge=0, lt=1 << 64)]
    first_sample: Count
    n: Annotated[int, Field(ge=1)]
    strength: Annotated[float | None, Field(description="if one was asked for")] = None
    seconds: Annotated[Seconds, Field(description="from admission to the answer")]
    queue_seconds: Annotated[Seconds, Field(description="before the first sample began")]


class InferRecord(_Drawn):
    """The same of the routes under /v2, whose parameters hold no lists."""

    warnings: Annotated[str | None, Field(description="why the samples may be poor")] = None


class Record(_Drawn):
    """The same of the routes under /v1, where no other part of the answer has the names."""

    id: Annotated[str, Field(description="for DELETE /v1/requests/{id}, while it runs")]
    model: str
    warnings: Annotated[list[str], Field(description="why the samples may be poor")]


class Image(_Answer):
    """One image."""

    b64_json: Png


class Images(Record):
    """The images of a request."""

    size: Annotated[str, Field(examples=["28x28"])]
    output_format: Literal["png"]
    data: list[Image]


class Samples(Record):
    """The samples of a request, as nested lists."""

    shape: Annotated[list[Count], Field(description="n, and the shape of a sample")]
    samples: list[Any]


class _Shown(Record):
    created_at: int
    size: str
    output_format: Literal["png"]
    b64_json: Png
    index: Annotated[Count, Field(description="of the image within the request")]


class PartialImage(_Shown):
    """The estimate of a clean image at a step on the way."""

    type: Literal["image_generation.partial_image"]
    partial_image_index: Count
    step: Count
    steps: Count


class CompletedImage(_Shown):
    """An image."""

    type: Literal["image_generation.completed"]


class Choice(_Answer):
    """A sampler with its arguments."""

    sampler: str
    arguments: dict[str, Any]


class ModelCard(_Answer):
    """What a model draws."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    bundle: Annotated[str, Field(description="digest of the bundle")]
    shipped: Annotated[str | None, Field(description="its name for everybody who has difftool")]
    shape: list[Count]
    images: bool
    classes: Annotated[Count, Field(description="0 if it has none")]
    class_names: Annotated[list[str], Field(description="empty if they have none")]
    null_label: Annotated[bool, Field(description="`classes` is the label of no class")]
    features: Annotated[list[str], Field(description="what its step graph can do")]
    precision: str
    program: Annotated[str, Field(description="what is run if a request says nothing else")]
    default: Annotated[Choice, Field(description="the same, as its parts")]
    samplers: list[str]


class ModelCards(_Answer):
    """All models."""

    object: Literal["list"]
    data: list[ModelCard]


class Argument(_Answer):
    """An argument of a sampler."""

    type: str
    default: Any


class SamplerCard(_Answer):
    """A sampler, and what `sampler_arguments` may have for it."""

    id: str
    object: Literal["sampler"]
    source: Annotated[str | None, Field(description="the paper that it is from")]
    arguments: dict[str, Argument]
    description: str


class SamplerCards(_Answer):
    """All samplers."""

    object: Literal["list"]
    data: list[SamplerCard]


class Limits(_Answer):
    """What one request may ask for."""

    n: Count
    num_inference_steps: Count


class ModelLoad(_Answer):
    """What the scheduler of a model has to do, and has done since the start."""

    id: str
    waiting: Annotated[Count, Field(description="requests that have not begun")]
    running: Annotated[Count, Field(description="samples in slots")]
    slots: Count
    max_batch: Annotated[Count, Field(description="samples that may share a step")]
    steps: Count
    sample_steps: Annotated[Count, Field(description="samples in all these steps")]


class Status(_Answer):
    """How busy the server is."""

    object: Literal["status"]
    draining: bool
    seconds: Annotated[Seconds, Field(description="since the start")]
    limits: Limits
    models: list[ModelLoad]


class Cancelled(_Answer):
    """A request that was cancelled, or had just ended."""

    id: str
    cancelled: bool


class Health(_Answer):
    """The process lives."""

    status: Literal["ok"]


class Ready(_Answer):
    """The server draws."""

    status: Literal["ready"]


class ServerMetadata(_Answer):
    """What a v2 server is."""

    name: Literal["difftool"]
    version: str
    extensions: list[str]


class ServerLive(_Answer):
    """The process lives."""

    live: Literal[True]


class ServerReady(_Answer):
    """The server draws."""

    ready: Literal[True]


class ModelReady(_Answer):
    """The model draws."""

    name: str
    ready: Literal[True]


class TensorMetadata(_Answer):
    """A tensor; a size of -1 may be any."""

    name: str
    datatype: str
    shape: list[Annotated[int, Field(ge=-1)]]


class ModelMetadata(_Answer):
    """The inputs of a model, of which all may be left out, and its output."""

    name: str
    platform: Literal["difftool"]
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class BinarySize(_Answer):
    """The bytes of a tensor that follows the JSON."""

    binary_data_size: Count


class OutputTensor(_Answer):
    """The samples, in row-major order: here, or as bytes behind the JSON."""

    name: Literal["samples"]
    datatype: Literal["FP32"]
    shape: list[Count]
    data: list[float] | None = None
    parameters: BinarySize | None = None


class Inferred(_Answer):
    """The samples of a request."""

    id: str
    model_name: str
    parameters: InferRecord
    outputs: list[OutputTensor]
