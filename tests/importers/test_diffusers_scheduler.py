"""Whole runs of imported models, and of a bundle, against the library's on the same noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import difftool
from difftool.cli import main
from difftool.diffusion import noise as draws
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.labels import Labels
from difftool.diffusion.samplers import compile_program
from difftool.importers.format import Imported
from difftool.runtime.protocols import Floats
from tests.importers.conftest import RUN, eager, read, run
from tests.oracles import diffusers_models as models
from tests.oracles.diffusers_models import CIFAR, SMALL

diffusers = pytest.importorskip("diffusers")
# Their schedulers hand tensors to numpy in a way that numpy 2 would rather have go.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DDPM, DDIM = "DDPMScheduler", "DDIMScheduler"
RUNS: dict[str, tuple[str, int, int, dict[str, Any]]] = {  # scheduler, levels, steps, settings
    "ddpm": (DDPM, 20, 20, {}),
    "ddpm fixed_large": (DDPM, 20, 20, {"variance_type": "fixed_large"}),
    "ddpm fixed_small_log": (DDPM, 20, 20, {"variance_type": "fixed_small_log"}),
    "ddpm learned_range": (DDPM, 20, 20, {"variance_type": "learned_range"}),
    "ddpm x0, not clipped": (DDPM, 20, 20, {"prediction_type": "sample", "clip_sample": False}),
    "ddpm v": (DDPM, 20, 20, {"prediction_type": "v_prediction"}),
    "ddim": (DDIM, 100, 50, {}),
    "ddim of few steps": (DDIM, 10, 10, {}),
    "ddim trailing": (DDIM, 100, 50, {"timestep_spacing": "trailing"}),
    "ddim v": (DDIM, 100, 50, {"prediction_type": "v_prediction"}),
    "ddim x0": (DDIM, 100, 50, {"prediction_type": "sample"}),
}


@pytest.mark.parametrize(("kind", "levels", "steps", "settings"), RUNS.values(), ids=RUNS)
def test_the_default_program_is_the_pipeline(
    kind: str,
    levels: int,
    steps: int,
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings | {"num_train_timesteps": levels}
    learned = settings.get("variance_type") == "learned_range"
    theirs = models.unet(SMALL | {"out_channels": 6 if learned else 3})
    noise = _noise(steps)
    images = _pipeline(kind, settings, theirs, noise, tmp_path, monkeypatch)
    ours = _run(read(tmp_path), noise)
    assert np.std(images) > 0.1
    assert np.abs(ours.clip(-1, 1) - images).max() <= RUN


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_fewer_steps_of_ddpm(
    variance: str, spacing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If they differ, it is by the noise of the library's last step, and the import says so."""
    settings = {"variance_type": variance, "timestep_spacing": spacing, "clip_sample": False}
    noise = _noise(4)
    images = _pipeline(DDPM, settings, models.unet(SMALL), noise, tmp_path, monkeypatch)
    imported = read(tmp_path)
    ours = _run(imported, noise, steps=4)
    said = [note for note in imported.notes if "adds noise in its last step" in note]
    assert bool(said) == (spacing == "trailing" and variance == "fixed_large")
    if said:
        assert f"variance_type={variance}" in said[0]
        sigma = imported.spec.schedule.sigma[249]  # the last of 1000 in 4 steps
        assert sigma > 0.5
        ours = ours + sigma * noise[-1].numpy()
    assert np.abs(ours.clip(-1, 1) - images).max() <= RUN


@torch.no_grad()
@pytest.mark.parametrize("kind", [DDPM, DDIM])
def test_a_run_by_label(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their pipelines take no labels, so the loop is written out."""
    theirs = models.unet(SMALL | {"num_class_embeds": 4})
    scheduler = getattr(diffusers, kind)(num_train_timesteps=20)
    theirs.save_pretrained(tmp_path)
    scheduler.save_pretrained(tmp_path)
    imported = read(tmp_path)
    assert imported.spec.classes == 4
    noise, labels = _noise(20), torch.tensor([3, 1])
    models.give_noise(monkeypatch, iter(noise[1:]))
    x = noise[0]
    scheduler.set_timesteps(20)
    for t in scheduler.timesteps:
        x = scheduler.step(theirs(x, t, class_labels=labels).sample, t, x).prev_sample
    ours = _run(imported, noise, Labels(labels.numpy()))
    assert np.abs(ours - x.numpy()).max() <= RUN
    other = _run(imported, noise, Labels(labels.flip(0).numpy()))
    assert np.abs(other - x.numpy()).max() > 0.1


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """google/ddpm-cifar10-32, narrower: imported, exported and verified on the command line."""
    folder = tmp_path_factory.mktemp("cifar10")
    models.save(folder / "model", CIFAR, {"variance_type": "fixed_large"})
    model, checkpoint, bundle = (str(folder / name) for name in ("model", "checkpoint", "bundle"))
    assert main(["import", model, "--out", checkpoint]) == 0
    assert main(["export", checkpoint, "--out", bundle]) == 0
    assert main(["verify", bundle, checkpoint, "--steps", "2", "--n", "1"]) == 0
    return bundle


@pytest.mark.parametrize(
    ("kind", "settings", "arguments"),
    [
        (DDPM, {"variance_type": "fixed_large"}, {"variance": "large"}),
        (DDIM, {}, {"raw_epsilon": True}),
    ],
)
def test_samples_of_the_bundle_are_those_of_the_pipeline(
    kind: str,
    settings: dict[str, Any],
    arguments: dict[str, Any],
    bundle: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps, model = 3, difftool.load(bundle, threads=1)
    default = model.default_program().call
    assert (default.name, default.arguments["variance"]) == ("ddpm", "large")
    arguments = {"steps": steps, "spacing": "leading", **arguments}
    program = compile_program(model.spec, SamplerCall(kind[:4].lower(), arguments))
    # The start noise, then each row's, as this runtime draws them.
    noise = [draws.normal(5, draw, np.arange(1), model.spec.shape) for draw in range(steps + 1)]
    drawn = torch.from_numpy(np.stack(noise))
    images = _pipeline(kind, settings, models.unet(CIFAR), drawn, tmp_path, monkeypatch)
    ours = model.sample(program, n=1, seed=5)
    assert (np.abs(ours) < 0.99).mean() > 0.2  # most is not clipped
    assert np.abs(ours.clip(-1, 1) - images).max() < 1e-3


def _noise(steps: int) -> Tensor:
    """Return the noise that a run starts from, and that of each step."""
    return torch.randn(steps + 1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def _pipeline(
    kind: str,
    settings: dict[str, Any],
    network: torch.nn.Module,
    noise: Tensor,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Floats:
    """Return a pipeline's images, in -1 .. 1, given noise in the order in which it asks for it.

    The pipeline is saved to a folder.
    """
    scheduler = getattr(diffusers, kind)(**settings)
    pipeline = getattr(diffusers, kind.replace("Scheduler", "Pipeline"))(network, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    models.give_noise(monkeypatch, iter(noise))
    result = pipeline(
        batch_size=noise.shape[1], num_inference_steps=len(noise) - 1, output_type="np"
    )
    images: Floats = result.images
    return images.transpose(0, 3, 1, 2) * 2 - 1


def _run(imported: Imported, noise: Tensor, labels: Labels | None = None, **changes: int) -> Floats:
    """Return the samples of the default program, or of a change to it."""
    call = imported.sampler.changed_by(SamplerCall(arguments=changes))
    start, *drawn = noise.numpy()
    return run(eager(imported), compile_program(imported.spec, call), start, drawn, labels)
