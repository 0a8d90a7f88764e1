"""The entries of `bundle.json`, the manifest of a bundle."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from difftool.bundle.entry import Entry
from difftool.bundle.measured import Measured
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.features import Feature

_Lax = Field(strict=False)  # JSON has lists for tuples, and words for enums


class FileEntry(Entry):
    """One file of a bundle."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ProgramEntry(Entry):
    """The default program, as the call that compiles it."""

    sampler: str
    arguments: dict[str, Any]

    @property
    def call(self) -> SamplerCall:
        """Return it as a SamplerCall."""
        return SamplerCall(self.sampler, self.arguments)


class NetworkEntry(Entry):
    """The exported network: its kind, constructor arguments and parameter count."""

    kind: str
    arguments: dict[str, Any]
    parameters: int


class Provenance(Entry):
    """The checkpoint of a bundle: step, weights, digest; and the versions that exported it."""

    step: int
    weights: Literal["ema", "raw"]
    weights_sha256: str
    versions: dict[str, str]


class Distilled(Entry):
    """The origin of a model that was distilled for few steps.

    - `method`: "consistency", "consistency_tuning" or "progressive"
    - `teacher_sha256`: the digest of the weights of the teacher's checkpoint
    - `guidance_scale`: the guidance of the teacher that is in the weights; 1 is none
    - `steps`, `levels`: the evaluations that it was made for, and their schedule indices, from most
      to least noise
    """

    method: str
    teacher_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    guidance_scale: float
    steps: int = Field(ge=1)
    levels: list[int]


class EngineKey(Entry):
    """All that an engine, a step graph compiled for GPUs, depends on.

    - `onnx_sha256`: the digest of its source in the bundle, which is the precision's own graph or
      step.onnx; difftool's `recipe` is the way to make the precision from step.onnx
    - `flavour`, `version`: the TensorRT variant that compiled it
    - `gpus`: compute capabilities such as sm89; for a "tensorrt" before 10.9, the name of one GPU
    - `profile`: the fewest, the expected and the most samples of a run
    - `batches`: the numbers of samples that it is tuned for, if these are several
    - `refit`: True if its weights can be replaced
    """

    onnx_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    recipe: int
    flavour: Literal["tensorrt-rtx", "tensorrt"]
    version: str
    gpus: Annotated[tuple[str, ...], _Lax]
    precision: Literal["fp32", "tf32", "fp16", "bf16", "int8", "fp8"]
    profile: Annotated[tuple[int, int, int], _Lax]
    batches: Annotated[tuple[int, ...], _Lax] = ()
    refit: bool = False


class Bounds(Entry):
    """The allowed distance of a precision from the exact samples, set when its graph was made.

    - `step_error`: the largest |difference| of x after one row, over the largest |x|
    - `psnr`: the least PSNR of whole runs, in dB
    """

    step_error: float = Field(gt=0)
    psnr: float


class Manifest(Entry):
    """The content of `bundle.json`.

    A new field needs a default, and a changed meaning raises FORMAT. `distilled` and `measured` are
    left out if a model was not, so that earlier versions read all other bundles. `digest` is the
    sha256 of the file itself with 64 zeros in place of the digest; the oldest bundles have none.
    """

    format: int
    spec: dict[str, Any]
    program: ProgramEntry
    network: NetworkEntry
    provenance: Provenance
    files: dict[str, FileEntry]
    fused: list[Annotated[Feature, _Lax]] = Field(default_factory=list)  # see `Bundle.features`
    engines: dict[str, EngineKey] = Field(default_factory=dict)  # by file
    bounds: dict[str, Bounds] = Field(default_factory=dict)  # by precision
    distilled: Distilled | None = None
    measured: Measured | None = None
    digest: str = Field(default="", pattern="^([0-9a-f]{64})?$")

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        value: dict[str, Any] = handler(self)
        since = ("distilled", "measured")
        return {key: each for key, each in value.items() if key not in since or each is not None}
