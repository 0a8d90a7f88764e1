"""diffusers' UNet2DModel of skip blocks and its VE pipeline, against the library itself."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difftool.diffusion.features import Feature
from difftool.diffusion.samplers import compile_program
from tests.importers.conftest import RUN, eager, near, read, run, run_network
from tests.oracles import diffusers_models as models

# google/ncsnpp-church-256 at a reduced depth and width; attention needs 128 channels.
CHURCH: dict[str, Any] = {
    "sample_size": 8,
    "center_input_sample": True,
    "time_embedding_type": "fourier",
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "block_out_channels": [32, 32, 128],
    "down_block_types": ["SkipDownBlock2D", "SkipDownBlock2D", "AttnSkipDownBlock2D"],
    "up_block_types": ["AttnSkipUpBlock2D", "SkipUpBlock2D", "SkipUpBlock2D"],
    "layers_per_block": 1,
    "mid_block_scale_factor": math.sqrt(2),
    "attention_head_dim": None,
    "norm_num_groups": None,
    "norm_eps": 1e-6,
}
OTHERS: dict[str, dict[str, Any]] = {
    "church": {},
    "two layers, and heads": {"layers_per_block": 2, "attention_head_dim": 32},
    "attention in between": {
        "block_out_channels": [64, 128, 64],
        "down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"],
        "up_block_types": ["SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"],
    },
    "of timesteps, not centered, not square": {
        "time_embedding_type": "positional",
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "center_input_sample": False,
        "sample_size": [8, 12],
    },
}
SCHEDULER = {"num_train_timesteps": 7, "sigma_max": 30.0, "snr": 0.15, "correct_steps": 1}
VE = {"_class_name": "ScoreSdeVeScheduler", **SCHEDULER}


@torch.no_grad()
@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_the_network_is_the_librarys(changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = models.unet(CHURCH | changes)
    fourier = theirs.config.time_embedding_type == "fourier"
    imported = read(models.save(tmp_path, CHURCH | changes, VE if fourier else None))
    assert imported.network.kind == "ncsnpp"
    assert imported.sampler.name == ("predictor_corrector" if fourier else "ddpm")
    x = torch.rand(2, *imported.spec.shape)
    levels = torch.tensor([0.05, 20.0] if fourier else [3.0, 700.0])
    expected = theirs(x, levels).sample
    if fourier:  # diffusers divides by sigma
        expected, levels = expected * levels[:, None, None, None], levels.log() / 4
    assert near(run_network(imported, x, levels), expected)


@torch.no_grad()
def test_the_program_is_the_pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both are given the same noise, in the order in which they ask for it."""
    from diffusers import ScoreSdeVePipeline, ScoreSdeVeScheduler

    scheduler = ScoreSdeVeScheduler(**SCHEDULER)
    noise = torch.randn(15, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    models.give_noise(monkeypatch, iter(noise))
    steps, predict = [], scheduler.step_pred

    def record(*arguments: Any, **options: Any) -> Any:
        steps.append(predict(*arguments, **options))
        return steps[-1]

    monkeypatch.setattr(scheduler, "step_pred", record)
    pipeline = ScoreSdeVePipeline(unet=models.unet(CHURCH), scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=2, num_inference_steps=7, output_type="np").images

    pipeline.save_pretrained(tmp_path)
    imported = read(tmp_path)
    assert imported.chosen.assumed == ()
    program = compile_program(imported.spec, imported.sampler)
    start, *drawn = noise.numpy()
    ours = run(eager(imported, Feature.NORMS), program, start * program.start.high, drawn)
    expected = steps[-1].prev_sample_mean.numpy()  # before the pipeline clips it
    assert near(ours, expected, RUN)
    assert np.array_equal(images, expected.clip(0, 1).transpose(0, 2, 3, 1))
