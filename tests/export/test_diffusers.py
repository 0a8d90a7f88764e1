"""The diffusers library's own pipelines and this runtime: same weights, same noise, same images."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import difftool
from difftool.diffusion import noise
from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import ddim, ddpm
from difftool.importers.diffusers_unet import namer
from difftool.importers.tensors import take
from difftool.networks.trained import Checkpoint, load_checkpoint
from tests.oracles.diffusers_models import give_noise

diffusers = pytest.importorskip("diffusers")

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "ddpm-mnist"
SEED, COUNT = 5, 1
LABEL = 7
SPEC = load_checkpoint(CHECKPOINT).spec


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    """Their U-Net with the shipped model's weights, for one label."""
    network = diffusers.UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        norm_num_groups=8,
    )
    return _give_weights(network, load_checkpoint(CHECKPOINT))


def _give_weights(network: torch.nn.Module, source: Checkpoint) -> torch.nn.Module:
    """Put our weights into their network.

    The importer leads from theirs to ours. So their weights are numbered, the numbers are imported,
    and where a number arrives stands the weight that belongs there. The vector of a label is added
    to the embedding of the time, so it is a part of that layer's bias.
    """
    state = network.state_dict()
    total = sum(value.numel() for value in state.values())
    numbers = torch.arange(total, dtype=torch.float32)  # which has them all, below 2^24
    assert total < 2**24
    sizes = [value.numel() for value in state.values()]
    numbered = {
        name: part.reshape(value.shape)
        for (name, value), part in zip(state.items(), numbers.split(sizes), strict=True)
    }
    plain = {k: v for k, v in source.call.arguments.items() if k not in ("classes", "null_label")}
    arrived = take(numbered, NetworkCall(source.call.kind, plain), namer(1), apart=True)
    weights = torch.full((total,), float("nan"))
    ours = dict(source.network.state_dict())
    bias = "embedding_mlp.2.bias"
    ours[bias] = ours[bias] + ours["label_embedding.weight"][LABEL]
    for name, number in arrived.items():
        weights[number.long().flatten()] = ours[name].flatten()
    for value, part in zip(state.values(), weights.split(sizes), strict=True):
        value.copy_(part.reshape(value.shape))
    return network.eval()


@pytest.mark.parametrize(
    ("name", "settings", "arguments", "compile_program"),
    [
        ("DDPM", {"variance_type": "fixed_large"}, {}, lambda: ddpm(SPEC, variance="large")),
        ("DDPM", {"variance_type": "fixed_small"}, {}, lambda: ddpm(SPEC, variance="small")),
        ("DDIM", {}, {"eta": 0.0}, lambda: ddim(SPEC, steps=1000, raw_epsilon=True)),
        (
            "DDIM",
            {},
            {"eta": 1.0, "use_clipped_model_output": True},
            lambda: ddim(SPEC, steps=1000, eta=1.0),
        ),
    ],
    ids=["ddpm fixed_large", "ddpm fixed_small", "ddim", "ddim eta=1, clipped epsilon"],
)
def test_a_thousand_steps_agree(
    name: str,
    settings: dict[str, str],
    arguments: dict[str, object],
    compile_program: Callable[[], Program],
    unet: torch.nn.Module,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = compile_program()
    give_noise(monkeypatch, _draws(program))
    scheduler = getattr(diffusers, f"{name}Scheduler")(prediction_type="v_prediction", **settings)
    run = getattr(diffusers, f"{name}Pipeline")(unet=unet, scheduler=scheduler)
    run.set_progress_bar_config(disable=True)
    drawn = run(batch_size=COUNT, num_inference_steps=1000, output_type="np", **arguments)
    theirs = drawn.images  # [N, H, W, C] in 0 .. 1
    ours = difftool.load("ddpm-mnist", threads=1).sample(program, n=COUNT, seed=SEED, labels=LABEL)
    assert ours.std() > 0.1
    assert np.abs(theirs.transpose(0, 3, 1, 2) * 2 - 1 - ours).max() < 1e-3


def _draws(program: Program) -> Iterator[torch.Tensor]:
    """The start noise, then each row's, as this runtime draws them."""
    for draw in [0, *program.draws]:
        yield torch.from_numpy(noise.normal(SEED, draw, np.arange(COUNT), SPEC.shape))
