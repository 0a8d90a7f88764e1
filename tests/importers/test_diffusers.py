"""diffusers' UNet2DModel and its schedulers, against the library itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difftool.importers import find, is_foreign
from difftool.importers.diffusers_unet import options, unet_network
from difftool.importers.tensors import outline
from tests.importers.conftest import missing, near, read, run_network
from tests.oracles import diffusers_models as models
from tests.oracles.diffusers_models import CELEBA, CIFAR, SMALL

diffusers = pytest.importorskip("diffusers")

WEIGHTS = "diffusion_pytorch_model.safetensors"
PARTS = ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json")
FILES = (f"unet/{WEIGHTS}", *PARTS)

NETWORKS: dict[str, dict[str, Any]] = {
    "ddpm-cifar10-32": CIFAR,
    "ddpm-celebahq-256": CELEBA,
    "as by default": SMALL,
    "classes": SMALL | {"num_class_embeds": 4},
    "scale and shift": SMALL | {"resnet_time_scale_shift": "scale_shift"},
    "scale and shift, and a norm in the middle": SMALL
    | {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
    "heads of 4, other groups in the middle": SMALL
    | {"attention_head_dim": 4, "attn_norm_num_groups": 16},
    "odd sizes and widths": SMALL
    | {
        "sample_size": [12, 20],
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": [24, 40, 56],
        "down_block_types": ["AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D"],
    },
    "residual resampling": SMALL
    | {
        "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 8,
    },
    "frequencies shifted, sines first": SMALL | {"freq_shift": 0, "flip_sin_to_cos": False},
    "cosines first to the lowest frequency": SMALL | {"freq_shift": 1},
    "one resolution": SMALL
    | {
        "block_out_channels": [16],
        "down_block_types": ["AttnDownBlock2D"],
        "up_block_types": ["UpBlock2D"],
        "dropout": 0.1,
    },
}


@torch.no_grad()
@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_the_network_is_the_librarys(config: dict[str, Any], tmp_path: Path) -> None:
    theirs = models.unet(config)
    imported = read(models.save(tmp_path, config))
    x, times = torch.randn(2, *imported.spec.shape), torch.tensor([3, 998])
    labels = [torch.tensor([0, 3])] if imported.spec.classes else []
    expected = theirs(x, times, *labels).sample
    assert imported.parameters == theirs.num_parameters()
    assert near(run_network(imported, x, times.float(), *labels), expected)


def test_the_published_network_has_its_35_million_parameters() -> None:
    """google/ddpm-cifar10-32 at its full width; its samples are compared at a smaller one."""
    full = CIFAR | {"_class_name": "UNet2DModel", "block_out_channels": [128, 256, 256, 256]}
    network, _ = unet_network(options(full))
    assert sum(value.numel() for value in outline(network).parameters()) == 35_746_307


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100},
        {"beta_schedule": "sigmoid", "num_train_timesteps": 50},
        {"trained_betas": [0.01, 0.02, 0.5], "num_train_timesteps": 3},
    ],
)
def test_the_noise_schedule_is_the_librarys(settings: dict[str, Any], tmp_path: Path) -> None:
    imported = read(models.save(tmp_path, SMALL, settings))
    expected = diffusers.DDPMScheduler(**settings).alphas_cumprod
    assert np.allclose(imported.spec.schedule.alpha_bar, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("path", [".", "unet", f"unet/{WEIGHTS}"])
def test_a_pipeline_by_each_of_its_paths(path: str, tmp_path: Path) -> None:
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=10)
    diffusers.DDIMPipeline(models.unet(SMALL), scheduler).save_pretrained(tmp_path)
    imported = read(tmp_path / path)
    assert (imported.sampler.name, len(imported.spec.schedule)) == ("ddim", 10)
    assert imported.chosen.assumed == ()
    assert imported.files == tuple(tmp_path / name for name in FILES)


def test_a_step_that_the_library_takes_otherwise_is_noted(tmp_path: Path) -> None:
    rules = {"_class_name": "DDIMScheduler", "timestep_spacing": "linspace"}
    models.save(tmp_path, SMALL, rules)
    assert any("the next timestep" in note for note in read(tmp_path).notes)


def test_a_training_gives_its_moving_average(tmp_path: Path) -> None:
    """As the library's example script for unconditional models leaves it."""
    from diffusers.training_utils import EMAModel

    network = models.unet(SMALL)
    average = EMAModel(
        network.parameters(), model_cls=diffusers.UNet2DModel, model_config=network.config
    )
    for _ in range(3):
        average.step(network.parameters())
    state = tmp_path / "run/checkpoint-3"
    network.save_pretrained(state / "unet")
    with torch.no_grad():
        for shadow in average.shadow_params:
            shadow += 1
    average.save_pretrained(state / "unet_ema")
    torch.save({"step": 3}, state / "optimizer.bin")
    diffusers.DDPMScheduler(variance_type="fixed_large").save_pretrained(tmp_path / "run/scheduler")
    assert is_foreign(state)
    for path in (state, state / "unet_ema"):
        imported = read(path)
        assert (imported.weights, imported.step) == ("ema", 3)
        assert torch.equal(imported.tensors["conv_in.weight"], network.conv_in.weight + 1)
        assert imported.sampler.arguments["variance"] == "large"
    raw = read(state / "unet")
    assert raw.weights == "raw"
    assert torch.equal(raw.tensors["conv_in.weight"], network.conv_in.weight)


def test_a_folder_goes_before_the_parts_in_it(tmp_path: Path) -> None:
    """As on the hub."""
    models.unet(SMALL | {"layers_per_block": 2}).save_pretrained(tmp_path / "unet")
    assert read(tmp_path, sample_size=8).network.arguments["blocks"] == 2
    models.save(tmp_path, SMALL)
    assert read(tmp_path).network.arguments["blocks"] == 1


def test_pickled_weights_and_copies_beside_them(tmp_path: Path) -> None:
    folder = models.save(tmp_path, SMALL, safe_serialization=False)
    pickled = folder / "diffusion_pytorch_model.bin"
    found = find(folder)
    assert found.source.file == pickled
    models.save(tmp_path, SMALL)
    models.save(tmp_path, SMALL, variant="fp16")
    again = find(folder)
    assert again.source.file == folder / WEIGHTS
    name = "conv_out.weight"
    assert torch.equal(again.read().tensors[name], found.read().tensors[name])


OLD_OPTIONS = {
    "sample_size": "image_size",
    "layers_per_block": "num_res_blocks",
    "block_out_channels": "block_channels",
    "down_block_types": "down_blocks",
    "up_block_types": "up_blocks",
    "freq_shift": "downscale_freq_shift",
    "norm_num_groups": "resnet_num_groups",
    "act_fn": "resnet_act_fn",
    "norm_eps": "resnet_eps",
    "attention_head_dim": "num_head_channels",
}
OLD_TENSORS = {
    "down_blocks": "downsample_blocks",
    "up_blocks": "upsample_blocks",
    "mid_block": "mid",
    "to_q": "query",
    "to_k": "key",
    "to_v": "value",
    "to_out.0": "proj_attn",
}


@pytest.mark.parametrize("kind", ["UNetModel", "UNetUnconditionalModel"])
def test_names_of_early_versions(kind: str, tmp_path: Path) -> None:
    config = CIFAR | {"_class_name": kind, "dropout": 0.0}
    for name in ("down_block_types", "up_block_types"):
        config[name] = [f"UNetRes{block}" for block in config[name]]
    config = {OLD_OPTIONS.get(name, name): value for name, value in config.items()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    rules = {"_class_name": "GaussianDDPMScheduler", "timesteps": 20, "tensor_format": "pt"}
    rules |= {"timestep_values": None, "variance_type": "fixed_large"}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(rules))
    theirs = models.unet(CIFAR)
    state = {}
    for name, value in theirs.state_dict().items():
        for new, old in OLD_TENSORS.items():
            name = name.replace(new, old)
        state[name] = value
        if "downsamplers.0.conv." in name:  # one tensor of two names
            state[name.replace(".conv.", ".op.")] = value
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")

    imported = read(tmp_path)
    assert len(imported.spec.schedule) == 20
    assert imported.sampler.arguments["variance"] == "large"
    x, times = torch.randn(1, 3, 32, 32), torch.tensor([7])
    with torch.no_grad():
        assert near(run_network(imported, x, times.float()), theirs(x, times).sample)


def test_a_size_that_the_configuration_leaves_open_must_be_said(tmp_path: Path) -> None:
    models.save(tmp_path, SMALL | {"sample_size": None})
    assert missing(tmp_path) == ["sample_size"]
    assert read(tmp_path, sample_size=12).spec.shape == (3, 12, 12)


def test_without_a_scheduler_its_defaults_are_assumed(tmp_path: Path) -> None:
    models.unet(SMALL).save_pretrained(tmp_path)
    imported = read(tmp_path, beta_schedule="squaredcos_cap_v2")
    assert {"scheduler", "beta_start", "variance_type"} <= set(imported.chosen.assumed)
    assert str(imported.spec.schedule).startswith("cosine(steps=1000")
    assert any("no scheduler_config.json" in note for note in imported.notes)
