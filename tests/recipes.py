"""Configurations that train in a moment."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from difftool.train.config import TrainConfig

IMAGES = {
    "method": "ddpm",
    "data": {"source": "digits", "flip": True},
    "network": {
        "kind": "unet",
        "arguments": {
            "channels": 8,
            "multipliers": [1],
            "blocks": 1,
            "attention": [],
            "groups": 4,
            "dropout": 0.2,
        },
    },
    "schedule": {"kind": "linear", "steps": 20, "beta_end": 0.4},
    "loss": {"kind": "simple"},
    "optimizer": {"lr": 1e-3, "warmup": 2, "clip": 1.0},
    "sampler": {"name": "ddpm"},
    "run": {"steps": 6, "batch": 8, "seed": 3, "log_every": 1, "checkpoint_every": 2, "keep": 2},
}
POINTS = {
    "method": "ncsn",
    "data": {"source": "gaussians", "count": 100},
    "network": {"kind": "mlp", "arguments": {"hidden": 8}, "parameterization": "scaled_score"},
    "schedule": {"kind": "geometric", "levels": 4, "sigma_min": 0.1, "sigma_max": 5.0},
    "loss": {"kind": "denoising"},
    "optimizer": {"lr": 1e-2, "decay": "cosine"},
    "sampler": {"name": "annealed_langevin", "arguments": {"steps": 8}},
    "run": {"steps": 6, "batch": 8, "seed": 3, "log_every": 1, "checkpoint_every": 2, "keep": 2},
}


@pytest.fixture
def images_config() -> "TrainConfig":
    """A DDPM of 8x8 digits, with dropout and flips."""
    from difftool.train.config import parse

    return parse(IMAGES)


@pytest.fixture
def points_config() -> "TrainConfig":
    """An NCSN of points in the plane."""
    from difftool.train.config import parse

    return parse(POINTS)
