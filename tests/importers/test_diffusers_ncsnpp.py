"""diffusers' UNet2DModel of skip blocks and its VE pipeline, against the library itself."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.features import Feature
from difftool.diffusion.samplers import compile_program
from difftool.errors import ArtefactError
from difftool.importers.diffusers_ncsnpp import (
    is_ncsnpp,
    ncsnpp_arguments,
    take_ncsnpp,
)
from difftool.importers.diffusers_unet import options
from difftool.networks import build_network
from difftool.verify.eager import Eager
from tests.importers.conftest import RUN, near, network_of, read
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
SAVED = CHURCH | {"_class_name": "UNet2DModel"}
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


def unet(**changes: Any) -> Any:
    return models.unet(CHURCH | changes)


def imported(theirs: Any, folder: Path) -> nn.Module:
    """Ours, from what the library saves."""
    theirs.save_pretrained(folder)
    arguments = ncsnpp_arguments(options(json.loads((folder / "config.json").read_text())))
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    network = build_network(NetworkCall("ncsnpp", arguments))
    network.load_state_dict(take_ncsnpp(tensors, arguments))
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_the_network_is_the_librarys(changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = unet(**changes)
    assert is_ncsnpp(theirs.config)
    ours = imported(theirs, tmp_path)
    size = theirs.config.sample_size
    x = torch.rand(2, 3, *([size, size] if isinstance(size, int) else size))
    if theirs.config.time_embedding_type == "fourier":
        sigma = torch.tensor([0.05, 20.0])
        expected = theirs(x, sigma).sample * sigma[:, None, None, None]
        actual = ours(x, ours.condition(sigma.log() / 4))  # type: ignore[operator]
    else:
        times = torch.tensor([3.0, 700.0])
        expected = theirs(x, times).sample
        actual = ours(x, ours.condition(times))  # type: ignore[operator]
    assert near(actual, expected)


@torch.no_grad()
def test_the_program_is_the_pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both are given the same noise, in the order in which they ask for it."""
    from diffusers import ScoreSdeVePipeline, ScoreSdeVeScheduler

    theirs, scheduler = unet(), ScoreSdeVeScheduler(**SCHEDULER)
    noise = torch.randn(15, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    models.give_noise(monkeypatch, iter(noise))
    steps, predict = [], scheduler.step_pred

    def record(*arguments: Any, **options: Any) -> Any:
        steps.append(predict(*arguments, **options))
        return steps[-1]

    monkeypatch.setattr(scheduler, "step_pred", record)
    pipeline = ScoreSdeVePipeline(unet=theirs, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=2, num_inference_steps=7, output_type="np").images

    pipeline.save_pretrained(tmp_path)
    ours = read(tmp_path)
    assert ours.chosen.assumed == ()
    program = compile_program(ours.spec, ours.sampler)
    batch = Eager(network_of(ours), ours.spec, [Feature.NORMS]).batch(program, 2)
    batch.start(noise[0].numpy() * program.start.high)
    for step in noise[1:]:
        batch.step(step.numpy())
    expected = steps[-1].prev_sample_mean.numpy()  # before the pipeline clips it
    assert near(batch.x, expected, RUN)
    assert np.array_equal(images, expected.clip(0, 1).transpose(0, 2, 3, 1))


def test_a_network_of_other_blocks_is_another() -> None:
    assert is_ncsnpp(options(SAVED))
    assert not is_ncsnpp(options(SAVED | {"down_block_types": ["DownBlock2D"] * 3}))


# Option -> values that are refused.
OF_THE_NETWORK: dict[str, list[Any]] = {
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
}
OF_THE_SCHEDULER: dict[str, list[Any]] = {
    "correct_steps": [0],
    "num_train_timesteps": ["many", 10**9],
    "sampling_eps": [1e-3],
    "sigma_max": [1e-3],
    "sigma_min": [-1, "low"],
    "snr": [0, -1],
}


@pytest.mark.parametrize(
    ("name", "value"), [(n, value) for n, values in OF_THE_NETWORK.items() for value in values]
)
def test_an_option_that_it_has_not_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ArtefactError, match=rf"^{name} is "):
        ncsnpp_arguments(options(SAVED | {name: value}))


@pytest.mark.parametrize(
    ("name", "value"), [(n, value) for n, values in OF_THE_SCHEDULER.items() for value in values]
)
def test_an_option_of_the_ve_scheduler(name: str, value: Any, church: Path) -> None:
    rules = {"_class_name": "ScoreSdeVeScheduler", **SCHEDULER, name: value}
    (church / "scheduler_config.json").write_text(json.dumps(rules))
    with pytest.raises(ArtefactError, match=rf"\b{name} is ") as caught:
        read(church)
    assert caught.value.exit_code == 3


@pytest.fixture(scope="module")
def church(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole model; its scheduler's configuration is written anew by each test."""
    return models.save(tmp_path_factory.mktemp("church"), CHURCH)


def test_tensors_that_do_not_fit_are_named() -> None:
    theirs = unet()
    state = theirs.state_dict()
    del state["down_blocks.0.skip_conv.weight"]
    state["up_blocks.2.skip_norm.weight"] = torch.ones(32)
    with pytest.raises(
        ArtefactError,
        match=r"missing: down_blocks\.0\.skip_conv\.weight; surplus: up_blocks\.2\.skip_norm",
    ):
        take_ncsnpp(state, ncsnpp_arguments(options(SAVED)))
