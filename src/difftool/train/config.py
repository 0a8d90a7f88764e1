"""The configuration of a training, which presets, TOML files and flags write in the same way."""

import inspect
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.schedules import schedule_from_dict
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, UsageError, quoted
from difftool.files import read_limited
from difftool.train.plain import require_plain
from difftool.train.sections import (
    Arguments,
    EmaConfig,
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    RunConfig,
    SamplerConfig,
    Section,
    ValidationConfig,
)
from difftool.train.written import to_toml

C = TypeVar("C", bound=Section)


class DataConfig(Section):
    """The data to train on."""

    source: Annotated[str, Field(min_length=1)]
    """A toy ("gaussians", "swiss_roll", "moons", "checkerboard", "rings"), "digits", a folder of
    images, a parquet file, pattern or folder, or "hf:NAME", a data set on the hub."""

    split: str = "train"
    """The part of the data to read, if it has several; if it has one, that is read."""

    column: str | None = None
    """The column of images, if there are several."""

    labels: str | None = None
    """The column of class labels, which makes the model class-conditional; "label" for digits, for
    a toy of several parts, and for the subfolders of a folder of images."""

    size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Crop and scale images to size x size."""

    mode: Literal["L", "RGB"] | None = None
    """Convert images to grey ("L") or colour ("RGB")."""

    count: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """The number of points of a toy."""

    flip: bool = False
    """Mirror every image with probability 1/2."""

    dequantize: bool = False
    """Add uniform noise below one grey level (NCSN)."""


class TrainConfig(Section):
    """Everything that determines a training."""

    method: Literal["ddpm", "ncsn"]
    """The kind of model: "ddpm" or "ncsn"."""

    data: DataConfig
    validation: ValidationConfig = ValidationConfig()
    network: NetworkConfig
    schedule: Arguments
    """The noise levels: a kind and its arguments. In an ncsn's geometric schedule levels and
    sigma_max may be "auto", and in its sampler steps and step_size (Song and Ermon 2020)."""

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
        if self.validation.share and self.validation.split is not None:
            raise UsageError(
                "validation.share and validation.split are both given", "give one of them"
            )
        self.optimizer.require_decay()
        check_split(self.run, self.optimizer)


_MOST_BYTES = 1 << 20
_MOST_KEPT = 1 << 18  # bytes of TOML; as JSON in a checkpoint it may take three times as many
LOSSES = {"ddpm": ("simple", "hybrid"), "ncsn": ("denoising", "simple", "implicit", "sliced")}


def parse(value: Mapping[str, Any]) -> TrainConfig:
    """Make a configuration from nested data; UsageError names the first mistake."""
    return parse_as(TrainConfig, value)


def parse_as(kind: type[C], value: Mapping[str, Any]) -> C:
    """Make a configuration of another kind, as `parse` does."""
    require_plain(value)
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
