"""Models of diffusers that are not imported are refused by name, and leave nothing behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from difftool.cli import main
from tests.importers.conftest import Planted, read, refusal
from tests.importers.test_diffusers_ncsnpp import CHURCH, VE
from tests.oracles import diffusers_models as models
from tests.oracles.diffusers_models import SMALL

pytest.importorskip("diffusers")

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG, SCHEDULER = "config.json", "scheduler_config.json"

Change = Callable[..., Path]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models that are imported as they are."""
    folder = tmp_path_factory.mktemp("wholes")
    small = models.save(folder / "small", SMALL)
    church = models.save(folder / "church", CHURCH, VE)
    assert read(small).network.kind == "unet"
    assert read(church).network.kind == "ncsnpp"
    return {"small": small, "church": church}


@pytest.fixture
def change(wholes: dict[str, Path], tmp_path: Path) -> Change:
    """Copy one of them, with other options in one of its configurations."""

    def copy(model: str, file: str = CONFIG, **options: Any) -> Path:
        folder = shutil.copytree(wholes[model], tmp_path / "model")
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | options))
        return folder

    return copy


# Model and file -> option -> values that are refused.
OPTIONS: dict[tuple[str, str], dict[str, list[Any]]] = {
    ("small", CONFIG): {
        "_class_name": ["UNet2DConditionModel"],
        "act_fn": ["gelu"],
        "add_attention": [False],
        "attention_head_dim": [12],
        "attn_norm_num_groups": [5],
        "block_out_channels": [[15, 30], "16", [], [4, 10**400 + 1]],
        "center_input_sample": [True],
        "class_embed_type": ["timestep", "identity"],
        "down_block_types": [
            *(["DownBlock2D", kind] for kind in ("CrossAttnDownBlock2D", "AttnSkipDownBlock2D")),
            *(["DownBlock2D"], None),
        ],
        "downsample_padding": [2],
        "downsample_type": ["fir"],
        "dropout": [1.5],
        "flip_sin_to_cos": [None],
        "freq_shift": [8],
        "in_channels": [0],
        "layers_per_block": [[1, 2], 10**9],
        "mid_block_scale_factor": [1.414],
        "mid_block_type": [None],
        "norm_eps": ["small"],
        "norm_num_groups": [None, 5],
        "num_class_embeds": [0],
        "out_channels": [4],
        "resnet_time_scale_shift": ["spatial"],
        "sample_size": [[8, 8, 8], 10**9],
        "time_embedding_dim": [32],
        "time_embedding_type": ["fourier", "learned"],
        "up_block_types": [["KUpBlock2D", "UpBlock2D"]],
        "upsample_type": ["resnet"],
    },
    ("small", SCHEDULER): {
        "beta_schedule": ["laplace"],
        "clip_sample_range": [2.0],
        "num_train_timesteps": [0, 10**9],
        "predict_epsilon": [False],
        "prediction_type": ["flow"],
        "rescale_betas_zero_snr": [True],
        "set_alpha_to_one": [False],
        "steps_offset": [1],
        "thresholding": [True],
        "timestep_spacing": ["karras"],
        "variance_type": ["fixed_large_log", "learned"],
    },
    ("church", CONFIG): {
        "in_channels": [1],
        "out_channels": [6],
        "time_embedding_type": ["learned"],
        "time_embedding_dim": [64],
        "attention_head_dim": [48, "8"],
        "center_input_sample": [None],
        "layers_per_block": [[1, 2], 10**9],
        "mid_block_scale_factor": [None, 1],
        "norm_eps": [1e-5],
        "norm_num_groups": [32],
        "attn_norm_num_groups": [16],
        "mid_block_type": [None],
        "act_fn": ["gelu"],
        "resnet_time_scale_shift": ["scale_shift"],
        "add_attention": [False],
        "class_embed_type": ["timestep"],
        "num_class_embeds": [10],
        "block_out_channels": [[32, 48, 128], [32, 32, 64]],
        "up_block_types": [["SkipUpBlock2D"] * 3],
    },
    ("church", SCHEDULER): {
        "correct_steps": [0],
        "num_train_timesteps": ["many", 10**9],
        "sampling_eps": [1e-3],
        "sigma_max": [1e-3],
        "sigma_min": [-1, "low"],
        "snr": [0, -1],
    },
}


@pytest.mark.parametrize(
    ("model", "file", "name", "value"),
    [
        (*place, name, value)
        for place, options in OPTIONS.items()
        for name, values in options.items()
        for value in values
    ],
)
def test_an_option_is_refused_by_name(
    model: str, file: str, name: str, value: Any, change: Change
) -> None:
    message = refusal(change(model, file, **{name: value}))
    assert message.removeprefix("sigma_min is 0.01 and ").startswith(f"{name} is ")


@pytest.mark.parametrize(
    ("model", "file", "options", "message"),
    [
        ("small", CONFIG, {"time_cond_proj_dim": 3, "z": 1}, "time_cond_proj_dim, z, which UNet2D"),
        ("church", CONFIG, {"down_block_types": ["DownBlock2D"] * 3}, "up_block_types is"),
        (
            "church",
            SCHEDULER,
            {
                "_class_name": "DDPMScheduler",
                **dict.fromkeys(("snr", "sigma_max", "correct_steps")),
            },
            "time_embedding_type is 'fourier', which difftool does not import",
        ),
        ("small", SCHEDULER, {"skip_prk_steps": True}, "skip_prk_steps, which difftool"),
        (
            "small",
            SCHEDULER,
            {"_class_name": "PNDMScheduler", "skip_prk_steps": True},
            "scheduler is 'PNDMScheduler'",
        ),
        ("small", SCHEDULER, {"_class_name": "ScoreSdeVeScheduler"}, "time_embedding_type is"),
        ("small", SCHEDULER, {"variance_type": "learned_range"}, "out_channels is 3"),
        ("small", SCHEDULER, {"trained_betas": [0.1]}, "trained_betas has 1 numbers for num"),
        ("small", SCHEDULER, {"trained_betas": "a"}, "trained_betas is not a list"),
        ("small", SCHEDULER, {"beta_end": 1.5}, "beta_start or beta_end: noise sch"),
    ],
)
def test_what_does_not_fit(
    model: str, file: str, options: dict[str, Any], message: str, change: Change
) -> None:
    assert message in refusal(change(model, file, **options))


def test_a_pipeline_of_more_parts(change: Change) -> None:
    index = {
        "_class_name": "LDMPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
        "vqvae": ["diffusers", "VQModel"],
        "safety_checker": [None, None],
    }
    folder = change("small")
    (folder / "model_index.json").write_text(json.dumps(index))
    assert "model_index.json has vqvae beside" in refusal(folder)


def test_weights_without_their_configuration(change: Change) -> None:
    folder = change("small")
    (folder / CONFIG).unlink()
    message = refusal(folder)
    assert message.startswith("the folder of ")
    assert "has no config.json of diffusers" in message


def test_tensors_that_do_not_fit_are_named(change: Change) -> None:
    """In the library's words, even if a tensor of ours is made of several."""
    folder = change("small")
    state = load_file(folder / WEIGHTS)
    for name in ("up_blocks.0.resnets.1.conv1.bias", "mid_block.attentions.0.to_k.weight"):
        del state[name]
    state["down_blocks.0.resnets.0.time_emb_proj.weight"] = torch.zeros(16, 5)
    state["down_blocks.2.resnets.0.conv1.bias"] = torch.zeros(2)
    state["conv_norm_out.weight"][4] = torch.nan
    save_file(state, folder / WEIGHTS)
    assert (
        "missing: mid_block.attentions.0.to_k.weight, up_blocks.0.resnets.1.conv1.bias; "
        "surplus: down_blocks.2.resnets.0.conv1.bias; of another shape: "
        "down_blocks.0.resnets.0.time_emb_proj.weight [16, 5] for [16, 64]; "
        "not finite: conv_norm_out.weight"
    ) in refusal(folder)


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def plant(path: Path) -> None:
    path.unlink()
    torch.save({"conv_in.weight": Planted("touch ran")}, path.with_suffix(".bin"))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (WEIGHTS, cut),
        (WEIGHTS, plant),
        (CONFIG, cut),
        (SCHEDULER, lambda path: path.write_text("[]")),
    ],
    ids=["truncated", "planted", "cut", "list"],
)
def test_a_damaged_or_hostile_model_ends_with_3(
    file: str, damage: Any, change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = change("small")
    damage(folder / file)
    monkeypatch.chdir(tmp_path)
    assert main(["import", str(folder), "--out", "mine"]) == 3
    assert sorted(tmp_path.iterdir()) == [folder]
