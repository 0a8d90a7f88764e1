"""google/ddpm-cifar10-32 at its full size: imported, exported, verified and sampled."""

from pathlib import Path

import numpy as np
import pytest
import torch

import difftool
from difftool.cli import main
from difftool.diffusion import noise
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.samplers import compile_program
from difftool.networks.trained import load_checkpoint
from tests.oracles import diffusers_models as models

diffusers = pytest.importorskip("diffusers")
# Their schedulers hand tensors to numpy in a way that numpy 2 would rather have go.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CONFIG = models.CIFAR | {"block_out_channels": [128, 256, 256, 256]}
SEED, STEPS = 5, 3
SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    """The library's network, with random weights."""
    network: torch.nn.Module = models.unet(CONFIG)
    assert sum(parameter.numel() for parameter in network.parameters()) == 35_746_307
    return network


@pytest.fixture(scope="module")
def bundle(unet: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its pipeline, imported, exported and verified on the command line."""
    folder = tmp_path_factory.mktemp("cifar10")
    pipeline = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(variance_type="fixed_large"))
    pipeline.save_pretrained(folder / "pipeline")
    checkpoint, bundle = folder / "checkpoint", folder / "bundle"
    assert main(["import", str(folder / "pipeline"), "--out", str(checkpoint)]) == 0
    assert main(["export", str(checkpoint), "--out", str(bundle)]) == 0
    verify = ["verify", str(bundle), str(checkpoint), "--steps", "2", "--n", "1"]
    assert main(verify) == 0
    default = load_checkpoint(checkpoint).sampler
    assert default.name == "ddpm"
    assert default.arguments["variance"] == "large"
    return bundle


@pytest.mark.parametrize(
    ("sampler", "settings", "arguments"),
    [
        ("ddpm", {"variance_type": "fixed_large"}, {"variance": "large"}),
        ("ddim", {}, {"raw_epsilon": True}),
    ],
)
def test_samples_are_those_of_the_librarys_pipeline(
    sampler: str,
    settings: dict[str, object],
    arguments: dict[str, object],
    unet: torch.nn.Module,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = difftool.load(bundle, threads=1)
    program = compile_program(
        model.spec, SamplerCall(sampler, {"steps": STEPS, "spacing": "leading", **arguments})
    )
    # The start noise, then each row's, as this runtime draws them.
    drawn = (noise.normal(SEED, draw, np.arange(1), SHAPE) for draw in [0, *program.draws])
    models.give_noise(monkeypatch, map(torch.from_numpy, drawn))
    scheduler = getattr(diffusers, f"{sampler.upper()}Scheduler")(**settings)
    run = getattr(diffusers, f"{sampler.upper()}Pipeline")(unet=unet, scheduler=scheduler)
    run.set_progress_bar_config(disable=True)
    images = run(batch_size=1, num_inference_steps=STEPS, output_type="np").images
    ours = model.sample(program, n=1, seed=SEED)
    expected = images.transpose(0, 3, 1, 2) * 2 - 1
    assert (np.abs(ours) < 0.99).mean() > 0.2  # most is not clipped
    assert np.abs(ours.clip(-1, 1) - expected).max() < 1e-3
