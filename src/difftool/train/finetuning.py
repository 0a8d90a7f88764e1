"""The usual configuration to train a checkpoint further, from what it says of itself."""

from pathlib import Path
from typing import Any, Final

from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.networks.trained import Checkpoint, load_checkpoint
from difftool.train.config import TrainConfig, model_spec, parse_as
from difftool.train.differences import listed
from difftool.train.reference import FILLED_IN

_METHODS: Final = {"timestep": "ddpm", "level": "ncsn"}
_FIELDS: Final = (
    *("cond", "timestep_scale", "timestep_start", "data_range", "learned_variance"),
    *("sigma_data", "null_label"),
)


def finetune_config(checkpoint: Path | str, *, data: str | None = None) -> TrainConfig:
    """Return the usual configuration to train a checkpoint further; `apply_overrides` changes it.

    Of a run of ours it is that run's own, with the checkpoint to start from. Of an imported
    checkpoint it has the network, the noise levels and the sampler, images are converted to its
    size and colours, and the learning rate is small.

    Args:
        checkpoint: a run or a checkpoint, imported ones too.
        data: a source as for `difftool.data.load`; by default that of the run.

    Raises:
        UsageError: no data is known, or a training cannot go on with such a model.
        ArtefactError: the checkpoint is not one, or is damaged.

    Examples:
        >>> config = difftool.train.finetune_config("runs/digits", data="digits")
        >>> config.network.init
        'runs/digits'
    """
    loaded = load_checkpoint(checkpoint)
    trained: dict[str, Any] = loaded.config["training"] or {}
    if loaded.config.get("distilled"):
        raise UsageError(
            f"{checkpoint} is a distilled model, which a training would spoil",
            "train its teacher further, and distill that",
        )
    if data is None and not trained:
        raise UsageError(f"{checkpoint} does not say which data it was trained on", "give `data`")
    if trained:
        source = trained["data"] if data is None else {**trained["data"], "source": data}
        network = {**trained["network"], "init": str(checkpoint)}
        return parse_as(TrainConfig, {**trained, "data": source, "network": network})
    return _of_import(str(checkpoint), loaded, str(data))


def _of_import(checkpoint: str, loaded: Checkpoint, data: str) -> TrainConfig:
    spec = loaded.spec
    method = _METHODS.get(spec.cond, "ddpm")
    plain = "simple" if method == "ddpm" else "denoising"
    arguments = {
        name: each for name, each in loaded.call.arguments.items() if name not in FILLED_IN
    }
    config = parse_as(
        TrainConfig,
        {
            "method": method,
            "data": {"source": data, **_images(spec)},
            "network": {
                "kind": loaded.call.kind,
                "arguments": arguments,
                "parameterization": spec.parameterization,
                "sigma_data": spec.sigma_data,
                "init": checkpoint,
            },
            "schedule": spec.schedule.to_dict(),
            "loss": {
                "kind": "hybrid" if spec.learned_variance else plain,
                "label_dropout": 0.1 if spec.null_label else 0.0,
            },
            "optimizer": {"lr": 1e-4, "warmup": 100, "clip": 1.0},
            "ema": {"decay": 0.999},
            "sampler": {"name": loaded.sampler.name, "arguments": dict(loaded.sampler.arguments)},
            "run": {"steps": 5000, "batch": 32, "checkpoint_every": 500},
        },
    )
    made = model_spec(config, spec.shape, spec.classes)
    found = {name: (getattr(spec, name), getattr(made, name)) for name in _FIELDS}
    if differing := {name: pair for name, pair in found.items() if pair[0] != pair[1]}:
        raise UsageError(
            f"no training goes on with the model of {checkpoint}: it has {listed(differing)}",
            "give --preset or --config, to start another model from its weights",
        )
    return config


def _images(spec: ModelSpec) -> dict[str, Any]:
    """Return how data is made to fit the model: labels, and the size and colours of images."""
    found: dict[str, Any] = {"labels": "label"} if spec.classes else {}
    if len(spec.shape) != 3:
        return found
    channels, height, width = spec.shape
    if height == width:
        found["size"] = height
    return found | {"mode": {1: "L", 3: "RGB"}.get(channels)}
