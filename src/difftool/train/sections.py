"""The sections of a configuration. The text under a key is all that says what it is.

`to_toml` writes these texts as comments, and docs/configuration.md is made of them.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from difftool.diffusion.calls import SamplerCall
from difftool.errors import UsageError

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

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def check(self) -> None:
        """Raise UsageError if parts of it, right by themselves, do not go together."""


class NetworkConfig(Section):
    """The network and what it predicts."""

    kind: str
    """A network of difftool, such as "unet" or "mlp"."""

    arguments: Arguments = {}
    """Its arguments. Those that follow from the data, such as in_channels, are filled in."""

    parameterization: str = "epsilon"
    """What it predicts: "epsilon", "x0", "v", "score", "scaled_score" or "edm"."""

    sigma_data: Positive = 0.5
    """The standard deviation of the data, which the parameterization edm needs."""

    init: Annotated[str, Field(min_length=1)] | None = None
    """A run or a checkpoint of such a network, whose averaged weights the training starts from."""


class LossConfig(Section):
    """The loss."""

    kind: Literal["simple", "hybrid", "denoising", "implicit", "sliced"]
    """For a ddpm "simple" or "hybrid" (learned variance); for an ncsn "denoising", "implicit",
    "sliced" or "simple", which weighs levels as EDM does with the parameterization edm (Karras et
    al. 2022, table 1)."""

    vlb_weight: Positive = 0.001
    """The weight of the variational bound in the hybrid loss."""

    label_dropout: Fraction = 0.0
    """How often a sample's label is replaced by the null label, which guidance needs (Ho and
    Salimans 2021, algorithm 1, p_uncond)."""

    min_snr: Positive | None = None
    """Weigh an error of x0 in the simple loss by its SNR, but at most by this, which spares effort
    on what has little noise (Hang et al. 2023; their number is 5)."""


class OptimizerConfig(Section):
    """The optimizer and its learning rate."""

    kind: Literal["adam", "adamw"] = "adam"
    """"adam", or "adamw" for weight decay apart from the gradient (Loshchilov and Hutter 2019)."""

    lr: Positive
    """The learning rate after the warmup."""

    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """The decay of Adam's two moments."""

    eps: Positive = 1e-8
    """What Adam adds to the root of the second moment."""

    weight_decay: Annotated[float, Field(ge=0, le=1e3)] = 0.0
    """The share, times the learning rate, by which adamw shrinks all weights at each step."""

    warmup: Annotated[int, Field(ge=0)] = 0
    """The steps in which the learning rate rises to lr."""

    decay: Literal["constant", "linear", "cosine"] = "constant"
    """The course of the learning rate from there to the last step: linear and cosine end at 0."""

    clip: Positive | None = None
    """The largest norm of the gradient; a longer one is scaled down to it."""

    accumulate: Count = 1
    """The micro-batches of each process in a step; with more, a step takes less memory."""

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of `step`, counted from 0, of `steps`."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        left = max(0.0, 1 - (step - self.warmup) / max(1, steps - self.warmup))
        course = {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}
        return self.lr * course[self.decay]

    def require_decay(self) -> None:
        """Raise UsageError for weight decay with Adam, which has none."""
        if self.weight_decay and self.kind == "adam":
            raise UsageError(
                f"optimizer.weight_decay {self.weight_decay} with the optimizer adam",
                "set optimizer.kind=adamw",
            )


class EmaConfig(Section):
    """The moving average of the weights, which is what samples are drawn with."""

    decay: Fraction = 0.9999
    """The share of the average that stays at each step; with 0 it is the weights themselves."""

    warmup: bool = True
    """Let early averages forget faster."""


class SamplerConfig(Section):
    """The default program of an export."""

    name: str
    """A sampler, as `difftool samplers` lists them."""

    arguments: Arguments = {}
    """Its arguments, such as steps."""

    @property
    def call(self) -> SamplerCall:
        """Return it as a SamplerCall."""
        return SamplerCall(self.name, self.arguments)


class ValidationConfig(Section):
    """Data that is not trained on, and whose loss is recorded."""

    share: Fraction = 0.0
    """The share of the data that is held out, chosen by the seed; 0 is none."""

    split: Annotated[str, Field(min_length=1)] | None = None
    """A split of the data by its name, such as "test", instead of a share."""

    every: Count = 1000
    """The steps between two validations; there is one after the last step, too."""

    samples: Count = 1024
    """The most samples that a validation takes, always the same ones with the same noise."""

    @property
    def wanted(self) -> bool:
        """Tell if there is a validation."""
        return self.share > 0 or self.split is not None


class RunConfig(Section):
    """The run: its length, its batches and its records."""

    steps: Count
    """The number of optimizer steps."""

    batch: Count = 128
    """The samples of a step, over all processes together."""

    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """The seed of the first weights, the order of the data and the noise."""

    precision: Literal["no", "bf16", "fp16"] = "no"
    """The numbers of networks: "no" is float32. "bf16" is slow on a CPU without instructions for it
    (AVX512-BF16, AMX), and "fp16" needs a GPU. Weights, losses and averages stay float32."""

    channels_last: bool = True
    """The memory layout of images; true is faster for most networks."""

    log_every: Count = 100
    """The steps between two records."""

    checkpoint_every: Count = 5_000
    """The steps between two checkpoints."""

    keep: Count = 3
    """The number of checkpoints that stay."""

    sample_every: Count | None = None
    """The steps between two grids of samples."""

    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Where records go apart from metrics.jsonl: "tensorboard", "wandb" (Weights & Biases)."""
