"""Training with PyTorch: a configuration and data in, a run folder of checkpoints out."""

from difftool.lazy import TYPE_CHECKING, lazily

if TYPE_CHECKING:
    from difftool.networks.trained import Checkpoint, load_checkpoint
    from difftool.train.config import TrainConfig, apply_overrides, read_toml, to_toml
    from difftool.train.distillation.config import DistillConfig, read_distill_toml
    from difftool.train.distillation.recipe import distill_config
    from difftool.train.extractor import TrainedExtractor, train_extractor
    from difftool.train.finetuning import finetune_config
    from difftool.train.measured import Likelihood, measure_likelihood
    from difftool.train.metrics import read_metrics
    from difftool.train.presets import distill_preset, preset, preset_names
    from difftool.train.reference import (
        FILLED_IN,
        Key,
        keys,
        network_arguments,
        schedule_arguments,
    )
    from difftool.train.resuming import run_config
    from difftool.train.trainer import TrainedRun, distill, train

__all__ = [
    "FILLED_IN",
    "Checkpoint",
    "DistillConfig",
    "Key",
    "Likelihood",
    "TrainConfig",
    "TrainedExtractor",
    "TrainedRun",
    "apply_overrides",
    "distill",
    "distill_config",
    "distill_preset",
    "finetune_config",
    "keys",
    "load_checkpoint",
    "measure_likelihood",
    "network_arguments",
    "preset",
    "preset_names",
    "read_distill_toml",
    "read_metrics",
    "read_toml",
    "run_config",
    "schedule_arguments",
    "to_toml",
    "train",
    "train_extractor",
]

_HOMES = {
    "finetune_config": "difftool.train.finetuning",
    "read_metrics": "difftool.train.metrics",
    "run_config": "difftool.train.resuming",
    "Checkpoint": "difftool.networks.trained",
    "load_checkpoint": "difftool.networks.trained",
    "FILLED_IN": "difftool.train.reference",
    "Key": "difftool.train.reference",
    "keys": "difftool.train.reference",
    "network_arguments": "difftool.train.reference",
    "schedule_arguments": "difftool.train.reference",
    "DistillConfig": "difftool.train.distillation.config",
    "Likelihood": "difftool.train.measured",
    "TrainConfig": "difftool.train.config",
    "TrainedExtractor": "difftool.train.extractor",
    "TrainedRun": "difftool.train.trainer",
    "apply_overrides": "difftool.train.config",
    "distill": "difftool.train.trainer",
    "distill_config": "difftool.train.distillation.recipe",
    "distill_preset": "difftool.train.presets",
    "measure_likelihood": "difftool.train.measured",
    "preset": "difftool.train.presets",
    "preset_names": "difftool.train.presets",
    "read_distill_toml": "difftool.train.distillation.config",
    "read_toml": "difftool.train.config",
    "to_toml": "difftool.train.config",
    "train": "difftool.train.trainer",
    "train_extractor": "difftool.train.extractor",
}

__getattr__ = lazily(__name__, _HOMES)
