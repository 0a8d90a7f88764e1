"""The configuration of a training, which presets, TOML files and flags write in the same way."""

import inspect
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomlkit
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.schedules import schedule_from_dict
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, UsageError, quoted, short
from difftool.files import read_limited

Positive = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]  # float32 holds it
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


def _without_none(value: Any) -> Any:
    """Leave out settings that are none, for which TOML has no word."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        if any(item is None for item in value):
            raise ValueError("a list holds none")
        return [_without_none(item) for item in value]
    return value


Arguments = Annotated[dict[str, Any], BeforeValidator(_without_none)]


class Section(BaseModel):
    """A part of a configuration; it cannot be changed, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def check(self) -> None:
        """Raise UsageError if parts of it, right by themselves, do not go together."""


C = TypeVar("C", bound=Section)


class DataConfig(Section):
    """The data to train on.

    - `source`: a toy ("gaussians", "swiss_roll", "moons", "checkerboard", "rings"), "digits", a
      folder of images, a parquet file, pattern or folder, or "hf:NAME", a data set on the hub
    - `split`: the part of the data to read, if it has several; if it has one, that is read
    - `column`: the column of images, if there are several
    - `labels`: the column of class labels, which makes the model class-conditional; "label" for
      digits, for a toy of several parts, and for the subfolders of a folder of images
    - `size`, `mode`: crop and scale images to size x size; convert them to "L" or "RGB"
    - `count`: the number of points of a toy
    - `flip`: mirror every image with probability 1/2
    - `dequantize`: add uniform noise below one grey level (NCSN)
    """

    source: Annotated[str, Field(min_length=1)]
    split: str = "train"
    column: str | None = None
    labels: str | None = None
    size: Annotated[int, Field(ge=1, le=4096)] | None = None
    mode: Literal["L", "RGB"] | None = None
    count: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    flip: bool = False
    dequantize: bool = False


class NetworkConfig(Section):
    """The network, by `kind` and `arguments` of `difftool.networks`, and its parameterization.

    Arguments that follow from the data, such as `in_channels`, are filled in. `init` is a
    checkpoint or a run of such a network, whose averaged weights it starts from.
    """

    kind: str
    arguments: Arguments = {}
    parameterization: str = "epsilon"
    sigma_data: Positive = 0.5
    init: Annotated[str, Field(min_length=1)] | None = None


class LossConfig(Section):
    """The loss: "hybrid" (learned variance) for a ddpm, "simple" for both, the others for an ncsn.

    With the parameterization edm "simple" weighs levels as EDM does (Karras et al. 2022, table 1).

    `label_dropout` is the probability of replacing a sample's label by the null label, which
    guidance needs (Ho and Salimans 2021, algorithm 1, p_uncond). With `min_snr` the simple loss
    weighs an error of x0 by min(SNR, `min_snr`), which spares effort on what has little noise
    (Hang et al. 2023; their number is 5).
    """

    kind: Literal["simple", "hybrid", "denoising", "implicit", "sliced"]
    vlb_weight: Positive = 0.001
    label_dropout: Fraction = 0.0
    min_snr: Positive | None = None


class OptimizerConfig(Section):
    """Adam and its learning rate: `warmup` steps up to `lr`, then `decay` to zero.

    `clip` bounds the gradient's norm; `accumulate` splits each batch into so many micro-batches.
    """

    lr: Positive
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: Positive = 1e-8
    warmup: Annotated[int, Field(ge=0)] = 0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    clip: Positive | None = None
    accumulate: Count = 1

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of `step`, counted from 0, of `steps`."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        left = max(0.0, 1 - (step - self.warmup) / max(1, steps - self.warmup))
        course = {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}
        return self.lr * course[self.decay]


class EmaConfig(Section):
    """The moving average of the weights; with `decay` 0 it is the weights themselves.

    With `warmup` early averages forget faster.
    """

    decay: Fraction = 0.9999
    warmup: bool = True


class SamplerConfig(Section):
    """The default program of an export: a sampler of `difftool.diffusion.samplers`."""

    name: str
    arguments: Arguments = {}

    @property
    def call(self) -> SamplerCall:
        """Return it as a SamplerCall."""
        return SamplerCall(self.name, self.arguments)


class RunConfig(Section):
    """The run: its length, its batches, and its records.

    - `batch`: samples of one step, over all processes
    - `precision`: "bf16" computes networks in bfloat16; weights, losses and averages stay float32.
      It is slow on a CPU without instructions for it (AVX512-BF16, AMX)
    - `channels_last`: the memory layout of images; faster for most networks
    - `keep`: the number of checkpoints that stay
    - `sample_every`: the number of steps between two grids of samples
    """

    steps: Count
    batch: Count = 128
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    precision: Literal["no", "bf16"] = "no"
    channels_last: bool = True
    log_every: Count = 100
    checkpoint_every: Count = 5_000
    keep: Count = 3
    sample_every: Count | None = None


class TrainConfig(Section):
    """Everything that determines a training.

    `schedule_from_dict` reads `schedule`. In an ncsn's geometric schedule `levels` and `sigma_max`
    may be "auto", and in its sampler `steps` and `step_size`: see `difftool.train.ncsnv2`.
    """

    method: Literal["ddpm", "ncsn"]
    data: DataConfig
    network: NetworkConfig
    schedule: Arguments
    loss: LossConfig
    optimizer: OptimizerConfig
    ema: EmaConfig = EmaConfig()
    sampler: SamplerConfig
    run: RunConfig

    def check(self) -> None:
        """Raise UsageError if method, loss and batch do not go together."""
        if self.loss.kind not in LOSSES[self.method]:
            raise UsageError(
                f"method {quoted(self.method)} has no loss {quoted(self.loss.kind)}",
                f"one of: {', '.join(LOSSES[self.method])}",
            )
        if self.loss.label_dropout and self.data.labels is None:
            raise UsageError(
                f"loss.label_dropout {self.loss.label_dropout} without labels",
                "set data.labels too",
            )
        if self.loss.min_snr is not None and self.loss.kind != "simple":
            raise UsageError(
                f"loss.min_snr {self.loss.min_snr} with the loss {quoted(self.loss.kind)}",
                "it weighs the loss simple alone",
            )
        check_split(self.run, self.optimizer)


_MOST_BYTES = 1 << 20
_MOST_KEPT = 1 << 18  # bytes of TOML; as JSON in a checkpoint it may take three times as many
_MOST_DEEP = 16  # a checkpoint adds a few levels, up to JSON_DEPTH
LOSSES = {"ddpm": ("simple", "hybrid"), "ncsn": ("denoising", "simple", "implicit", "sliced")}


def parse(value: Mapping[str, Any]) -> TrainConfig:
    """Make a configuration from nested data; UsageError names the first mistake."""
    return parse_as(TrainConfig, value)


def parse_as(kind: type[C], value: Mapping[str, Any]) -> C:
    """Make a configuration of another kind, as `parse` does."""
    _require_plain(value)
    try:
        config = kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"configuration: {where}: {first['msg']}", _hint(kind, first)) from None
    config.check()
    if (size := len(to_toml(config))) > _MOST_KEPT:
        raise UsageError(f"the configuration has {size} bytes", f"use at most {_MOST_KEPT}")
    return config


def check_split(run: RunConfig, optimizer: OptimizerConfig) -> None:
    """Raise UsageError if a batch does not split into equal micro-batches."""
    if run.batch % optimizer.accumulate:
        raise UsageError(
            f"run.batch {run.batch} does not split into "
            f"optimizer.accumulate {optimizer.accumulate} parts",
            "choose a divisor",
        )


def read_toml(path: Path | str) -> TrainConfig:
    """Read a configuration from a TOML file of at most 1 MiB."""
    return read_toml_as(TrainConfig, path)


def read_toml_as(kind: type[C], path: Path | str) -> C:
    """Read a configuration of another kind, as `read_toml` does."""
    try:
        return parse_as(kind, tomllib.loads(read_limited(path, _MOST_BYTES).decode()))
    except ArtefactError as error:
        raise UsageError(error.message, error.hint) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is not valid TOML: {str(error)[:100]}", "--print-config writes one that is"
        ) from error


def apply_overrides(config: C, overrides: Iterable[str]) -> C:
    """Apply "section.key=value" assignments to a configuration; values are TOML or bare strings.

    "none" removes a value, so that its default holds.
    """
    value = config.model_dump()
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise UsageError(f"{quoted(override)} assigns nothing", "write section.key=value")
        *parents, key = path.strip().split(".")
        target = value
        for parent in parents:
            if not isinstance(target.get(parent), dict):
                raise UsageError(
                    f"the configuration has no section {quoted(parent)}",
                    f"it has: {', '.join(target)}",
                )
            target = target[parent]
        target[key] = _parse_value(text.strip())
    return parse_as(type(config), value)


def to_toml(config: Section) -> str:
    """Write TOML from which `read_toml` reads the same configuration."""
    return tomlkit.dumps(config.model_dump(exclude_none=True))


def model_spec(config: TrainConfig, shape: tuple[int, ...], classes: int = 0) -> ModelSpec:
    """Return the spec of the model that a configuration trains on data.

    `shape` [*S] is one sample's, [C, H, W] for images, and `classes` is the number of labels.
    """
    image_range = (-1.0, 1.0) if config.method == "ddpm" else (0.0, 1.0)
    return ModelSpec(
        shape=shape,
        schedule=schedule_from_dict(config.schedule),
        parameterization=config.network.parameterization,
        cond="timestep" if config.method == "ddpm" else "level",
        data_range=image_range if len(shape) == 3 else None,
        learned_variance=config.loss.kind == "hybrid",
        sigma_data=config.network.sigma_data,
        classes=classes,
        null_label=config.loss.label_dropout > 0,
    )


def network_call(config: TrainConfig, spec: ModelSpec) -> NetworkCall:
    """Return the network with its arguments: those that follow from the spec, and the configured.

    Of the former it gets only those that its constructor takes. UsageError if the model has
    classes but the network takes no labels, or if the network has levels of another number.
    """
    from difftool.networks import NETWORKS  # here, so that configurations load without PyTorch

    channels, kind = spec.shape[0], config.network.kind
    takes = {name: inspect.signature(network).parameters for name, network in NETWORKS.items()}
    if spec.classes and "classes" not in takes.get(kind, ()):
        labelled = [name for name, arguments in takes.items() if "classes" in arguments]
        raise UsageError(
            f"network {quoted(kind)} takes no labels",
            f"leave data.labels out, or use one of: {', '.join(labelled)}",
        )
    derived: dict[str, Any] = {
        "dimensions": channels,
        "in_channels": channels,
        "out_channels": 2 * channels if spec.learned_variance else channels,
        "levels": len(spec.schedule),
    }
    if spec.classes:
        derived |= {"classes": spec.classes, "null_label": spec.null_label}
    known = {name: value for name, value in derived.items() if name in takes.get(kind, ())}
    levels = config.network.arguments.get("levels", derived["levels"])
    if "levels" in known and levels != known["levels"]:  # a rehearsal has no numbers to see that
        raise UsageError(
            f"network.arguments.levels is {quoted(levels)}, and the schedule has {known['levels']}",
            "leave it out; it follows from the schedule",
        )
    return NetworkCall(kind, {**known, **config.network.arguments})


def _hint(kind: type[Section], error: Mapping[str, Any]) -> str:
    if error["type"] != "extra_forbidden":
        return ""
    section: Any = kind
    for part in error["loc"][:-1]:
        section = section.model_fields[part].annotation
    return f"known here: {', '.join(section.model_fields)}"


def _parse_value(text: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except RecursionError as error:
        raise UsageError(f"{quoted(text)} nests too deep", "give plain data") from error
    except ValueError:
        return text


def _require_plain(value: Any, where: tuple[str, ...] = ()) -> None:
    """Raise UsageError for the first value that does not survive both TOML and JSON."""
    if what := _not_plain(value, len(where)):
        raise UsageError(
            f"configuration: {short('.'.join(where), 100)}: {what}",
            "--print-config writes one that is plain data",
        )
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_plain(key, where)
            _require_plain(item, (*where, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _require_plain(item, (*where, str(index)))


def _not_plain(value: Any, depth: int) -> str:
    """Return what is wrong with a value itself, or ""."""
    match value:
        case None | bool():
            return ""
        case str():
            # Half of a surrogate pair is a character that cannot be written.
            half = any("\ud800" <= character <= "\udfff" for character in value)
            return f"{quoted(value)} is not a text" if half else ""
        case float():
            return "" if math.isfinite(value) else "a number is not finite"
        case int():
            return "" if abs(value) < 1 << 63 else "a number has more than 64 bits"
        case Mapping() | list() | tuple():
            return "" if depth <= _MOST_DEEP else f"it nests more than {_MOST_DEEP} deep"
        case _:
            return f"a {type(value).__name__} has no meaning here"
