"""Models of diffusers that are not imported are refused by name, and leave nothing behind."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from difftool.cli import main
from difftool.errors import ArtefactError
from difftool.importers import find
from tests.importers.conftest import read
from tests.oracles import diffusers_models as models
from tests.oracles.diffusers_models import SMALL

pytest.importorskip("diffusers")

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG, SCHEDULER = "config.json", "scheduler_config.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is imported as it is."""
    folder = models.save(tmp_path_factory.mktemp("whole"), SMALL)
    find(folder).read()
    return folder


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(whole, tmp_path / "model")


def change(folder: Path, file: str, **options: Any) -> None:
    """Change what a configuration says."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | options))


# Option -> values that are refused.
OF_THE_NETWORK: dict[str, list[Any]] = {
    "_class_name": ["UNet2DConditionModel"],
    "act_fn": ["gelu"],
    "add_attention": [False],
    "attention_head_dim": [12],
    "attn_norm_num_groups": [5],
    "block_out_channels": [[15, 30], "16", []],
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
}
OF_THE_SCHEDULER: dict[str, list[Any]] = {
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
}


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        (file, name, value)
        for file, options in ((CONFIG, OF_THE_NETWORK), (SCHEDULER, OF_THE_SCHEDULER))
        for name, values in options.items()
        for value in values
    ],
)
def test_an_option_is_refused_by_name(file: str, name: str, value: Any, model: Path) -> None:
    change(model, file, **{name: value})
    with pytest.raises(ArtefactError, match=rf"^{name} is ") as caught:
        read(model)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        (CONFIG, {"time_cond_proj_dim": 3, "z": 1}, "time_cond_proj_dim, z, which UNet2D"),
        (SCHEDULER, {"skip_prk_steps": True}, "skip_prk_steps, which difftool"),
        (
            SCHEDULER,
            {"_class_name": "PNDMScheduler", "skip_prk_steps": True},
            "scheduler is 'PNDMScheduler'",
        ),
        (SCHEDULER, {"_class_name": "ScoreSdeVeScheduler"}, "time_embedding_type is"),
        (SCHEDULER, {"variance_type": "learned_range"}, "out_channels is 3"),
        (SCHEDULER, {"trained_betas": [0.1]}, "trained_betas has 1 numbers for num"),
        (SCHEDULER, {"trained_betas": "a"}, "trained_betas is not a list"),
        (SCHEDULER, {"beta_end": 1.5}, "beta_start or beta_end: noise sch"),
    ],
)
def test_what_does_not_fit(file: str, options: dict[str, Any], message: str, model: Path) -> None:
    change(model, file, **options)
    with pytest.raises(ArtefactError, match=message) as caught:
        read(model)
    assert caught.value.exit_code == 3


def test_a_pipeline_of_more_parts(model: Path) -> None:
    index = {
        "_class_name": "LDMPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
        "vqvae": ["diffusers", "VQModel"],
        "safety_checker": [None, None],
    }
    (model / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ArtefactError, match=r"model_index\.json has vqvae beside"):
        read(model)


def test_weights_without_their_configuration(model: Path) -> None:
    (model / CONFIG).unlink()
    with pytest.raises(ArtefactError, match=r"the folder of .* has no config\.json of diffusers"):
        read(model)


def test_tensors_that_do_not_fit_are_named(model: Path) -> None:
    """In the library's words, even if a tensor of ours is made of several."""
    state = load_file(model / WEIGHTS)
    for name in ("up_blocks.0.resnets.1.conv1.bias", "mid_block.attentions.0.to_k.weight"):
        del state[name]
    state["down_blocks.0.resnets.0.time_emb_proj.weight"] = torch.zeros(16, 5)
    state["down_blocks.2.resnets.0.conv1.bias"] = torch.zeros(2)
    state["conv_norm_out.weight"][4] = torch.nan
    save_file(state, model / WEIGHTS)
    with pytest.raises(ArtefactError) as caught:
        read(model)
    message = caught.value.message
    assert (
        "missing: mid_block.attentions.0.to_k.weight, up_blocks.0.resnets.1.conv1.bias; "
        "surplus: down_blocks.2.resnets.0.conv1.bias; of another shape: "
        "down_blocks.0.resnets.0.time_emb_proj.weight [16, 5] for [16, 64]; "
        "not finite: conv_norm_out.weight"
    ) in message
    assert caught.value.exit_code == 3


class Planted:
    """Becomes a call when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def plant(path: Path) -> None:
    path.unlink()
    torch.save({"conv_in.weight": Planted()}, path.with_suffix(".bin"))


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
    file: str, damage: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(model / file)
    monkeypatch.chdir(tmp_path)
    assert main(["import", str(model), "--out", "mine"]) == 3
    assert sorted(tmp_path.iterdir()) == [model]
