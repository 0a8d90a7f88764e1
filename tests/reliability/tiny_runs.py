"""Runs of 8x8 digits that train within a second, and what proves that two of them are the same.

The DDPM has dropout and flips, the NCSN dequantization, so that all that is drawn at random counts.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from difftool import checkpoint as ckpt
from difftool.train.config import TrainConfig, apply_overrides, parse
from difftool.train.trainer import train

STEPS: Final = 24
MORE: Final = 20  # steps after the end, whose losses are compared

_RUN = {
    "steps": STEPS,
    "batch": 8,
    "seed": 3,
    "log_every": 1,
    "checkpoint_every": 4,
    "keep": 1,
    "precision": "no",
}
_NETWORK = {"channels": 12, "multipliers": [1], "blocks": 1, "attention": [], "groups": 4}
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "ddpm": {
        "method": "ddpm",
        "data": {"source": "digits", "flip": True},
        "network": {"kind": "unet", "arguments": {**_NETWORK, "dropout": 0.2}},
        "schedule": {"kind": "linear", "steps": 20, "beta_end": 0.4},
        "loss": {"kind": "simple"},
        "optimizer": {"lr": 1e-3, "warmup": 2, "clip": 1.0},
        "sampler": {"name": "ddpm"},
        "run": _RUN,
    },
    "ncsn": {
        "method": "ncsn",
        "data": {"source": "digits", "dequantize": True},
        "network": {
            "kind": "unet",
            "arguments": {**_NETWORK, "dropout": 0.0},
            "parameterization": "scaled_score",
        },
        "schedule": {"kind": "geometric", "levels": 5, "sigma_min": 0.1, "sigma_max": 5.0},
        "loss": {"kind": "denoising"},
        "optimizer": {"lr": 1e-3},
        "sampler": {"name": "annealed_langevin", "arguments": {"steps": 10}},
        "run": _RUN,
    },
}


def config_of(method: str, *overrides: str) -> TrainConfig:
    """The configuration of a tiny run."""
    return apply_overrides(parse(CONFIGS[method]), overrides)


def train_tiny(method: str, run: Path) -> None:
    """Train to the end, from wherever the run is."""
    train(config_of(method), run, progress=False)


def fingerprint(method: str, run: Path, defect: Callable[[], None] | None = None) -> dict[str, Any]:
    """Train to the end, and then `MORE` steps: digests of all that was saved, and their losses."""
    if defect is not None:
        defect()
    train_tiny(method, run)
    saved = ckpt.read_config(ckpt.find_checkpoint(run))
    train(config_of(method, f"run.steps={STEPS + MORE}"), run, progress=False)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {
        "step": saved["step"],  # the data's position is step * batch
        "files": {name: entry["sha256"] for name, entry in saved["files"].items()},
        "losses": [(record["step"], record["loss"].hex()) for record in records],
    }
