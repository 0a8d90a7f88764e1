"""lucidrains/denoising-diffusion-pytorch: what its own Trainer saves computes the same here."""

import importlib
import os
import sys
import types
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn

from difftool.diffusion.samplers import compile_program
from difftool.errors import UsageError
from difftool.export import export
from difftool.importers import import_checkpoint
from difftool.networks.trained import Checkpoint, load_checkpoint
from difftool.runtime.opening import open_backend
from difftool.runtime.protocols import Backend
from difftool.verify.eager import Eager
from tests.importers.conftest import RUN, Save, missing, near, read, refusal, run, words
from tests.oracles.bfloat16 import require_kernels_of_bfloat16
from tests.oracles.foreseen import require_all_foreseen

SIZE = 8
SMALL = {"dim": 8, "dim_mults": (1, 2)}
# Arguments of Unet and of GaussianDiffusion, what is said of the file, and what is recovered.
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str, str]] = {
    "defaults": (SMALL, {"timesteps": 24}, {}, "v", "sigmoid(steps=24,"),
    "linear": (
        {"dim": 8, "init_dim": 6, "dim_mults": (1, 3), "channels": 1, "attn_heads": (2, 3)}
        | {"attn_dim_head": (4, 6), "full_attn": (True, False)},
        {"timesteps": 40, "objective": "pred_noise", "beta_schedule": "linear"},
        {},
        "epsilon",
        "linear(steps=40, beta_start=0.0025, beta_end=0.5)",
    ),
    "betas": (
        SMALL | {"dropout": 0.5},
        {"timesteps": 30, "objective": "pred_x0", "beta_schedule": "cosine"}
        | {"schedule_fn_kwargs": {"s": 0.05}, "min_snr_loss_weight": True, "sampling_timesteps": 10}
        | {"ddim_sampling_eta": 0.5},
        {"sampling_timesteps": 10, "ddim_sampling_eta": 0.5},
        "x0",
        "from_betas",
    ),
    "learned": (
        SMALL | {"learned_variance": True},
        {"timesteps": 20, "objective": "pred_noise", "beta_schedule": "cosine"},
        {},
        "epsilon",
        "cosine(steps=20,",
    ),
    "version 1": (
        SMALL,
        {"timesteps": 24, "min_snr_loss_weight": True, "sampling_timesteps": 8},
        {"sampling_timesteps": 8},
        "v",
        "sigmoid(steps=24,",
    ),
}


@pytest.fixture(scope="module")
def library() -> Iterator[types.ModuleType]:
    """The library.

    It reads pictures with torchvision, whose wheels want PyTorch's CUDA build; no picture is read
    here, so something of that name will do while it is imported.
    """
    name = "denoising_diffusion_pytorch"
    if importlib.util.find_spec(name) is None:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent(f"needs {name}, which `make` installs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", MagicMock(__spec__=None))
        yield importlib.import_module(name)


class Trained:
    """A model that the library's Trainer has taken a step with and saved."""

    def __init__(self, library: types.ModuleType, name: str, folder: Path) -> None:
        unet, process, self.said, self.parameterization, self.schedule = MODELS[name]
        torch.manual_seed(0)
        network = library.Unet(**unet)
        if name == "version 1":
            _as_version_1(network)
        kind = library.LearnedGaussianDiffusion if name == "learned" else library.GaussianDiffusion
        self.process = kind(network, image_size=SIZE, **process)
        pictures = folder / "pictures"
        pictures.mkdir()
        for index in range(100):  # that the Trainer counts, and does not open
            (pictures / f"{index}.png").touch()
        trainer = library.Trainer(
            self.process, pictures, calculate_fid=False, results_folder=folder, train_lr=1e-2
        )
        trainer.model(torch.rand(2, network.channels, SIZE, SIZE)).backward()
        trainer.opt.step()
        trainer.step = 1
        trainer.ema.update()  # the average is the network after this, and differs from here on
        with torch.no_grad():
            for parameter in trainer.ema.ema_model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        trainer.save(1)
        self.path = folder / "model-1.pt"
        if name == "version 1":
            torch.save(torch.load(self.path, weights_only=True) | {"version": "1.11.0"}, self.path)
        self.ema = trainer.ema.ema_model.eval()


def _as_version_1(network: nn.Module) -> None:
    """The residual blocks' norm as it was before version 2: all that then changed."""
    for module in network.modules():
        if type(module).__name__ == "Block":
            module.norm = nn.GroupNorm(8, module.proj.out_channels)


Train = Callable[[str], Trained]


@pytest.fixture(scope="module")
def train(library: types.ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train a model by its name, or return it if that is done."""
    return cache(lambda name: Trained(library, name, tmp_path_factory.mktemp("lucidrains")))


@pytest.fixture(scope="module", params=MODELS)
def trained(request: pytest.FixtureRequest, train: Train) -> Trained:
    return train(request.param)


@pytest.fixture(scope="module")
def checkpoint(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The same, imported."""
    out = tmp_path_factory.mktemp("imported") / "checkpoint"
    import_checkpoint(trained.path, out, settings=words({"image_size": SIZE} | trained.said))
    return load_checkpoint(out)


@torch.no_grad()
def test_one_evaluation(trained: Trained, checkpoint: Checkpoint) -> None:
    spec = checkpoint.spec
    x = torch.randn(4, *spec.shape, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0, 3, 11, len(spec.schedule) - 1])
    expected = trained.ema.model(x, t)
    actual = checkpoint.network(x, checkpoint.network.condition(t.float()))
    assert near(actual, expected)


def test_a_whole_run(
    trained: Trained, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    equals_its_own(Eager(checkpoint.network, checkpoint.spec), trained, checkpoint, monkeypatch)


@pytest.mark.parametrize("trained", ["linear"], indirect=True)
def test_a_whole_run_of_the_bundle(
    trained: Trained, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On ONNX Runtime; this model has linear and full attention and both changes of resolution."""
    bundle = export(checkpoint.path, tmp_path / "bundle")
    backend = open_backend(bundle, "onnxruntime-cpu", threads=1)
    equals_its_own(backend, trained, checkpoint, monkeypatch)
    require_all_foreseen(bundle.path)
    require_kernels_of_bfloat16(bundle.path)


def equals_its_own(
    backend: Backend, trained: Trained, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default program gives what the library's own `sample` does on the same noise."""
    program = compile_program(checkpoint.spec, checkpoint.sampler)
    generator = np.random.default_rng(0)
    shape = (2, *checkpoint.spec.shape)
    start, *noise = generator.normal(size=(len(program) + 1, *shape)).astype(np.float32)
    drawn = iter(noise)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: torch.from_numpy(start))
    monkeypatch.setattr(torch, "randn_like", lambda _: torch.from_numpy(next(drawn)))
    expected = 2 * trained.ema.sample(batch_size=2).numpy() - 1
    assert near(run(backend, program, start, noise), expected, RUN)


def test_what_the_file_tells(trained: Trained, checkpoint: Checkpoint) -> None:
    spec, source = checkpoint.spec, checkpoint.config["source"]
    assert str(spec.schedule).startswith(trained.schedule)
    alpha_bar = trained.process.alphas_cumprod.numpy()
    assert np.allclose(spec.schedule.alpha_bar, alpha_bar, rtol=1e-4, atol=0)
    assert spec.parameterization == trained.parameterization
    assert (checkpoint.step, checkpoint.weights) == (1, "ema")
    assert source["format"] == "lucidrains"
    assert source["notes"][0].startswith("saved by version ")
    raw = sum(parameter.numel() for parameter in trained.process.model.parameters())
    assert sum(p.numel() for p in checkpoint.network.parameters()) == raw


@pytest.fixture(scope="module")
def content(train: Train) -> dict[str, Any]:
    """The content of a file of the defaults."""
    return dict(torch.load(train("defaults").path, weights_only=True))


def test_the_image_size_must_be_said(content: dict[str, Any], save: Save) -> None:
    assert missing(save(content)) == ["image_size"]


def test_an_average_that_has_not_begun_is_not_taken(content: dict[str, Any], save: Save) -> None:
    ema = content["ema"] | {"initted": torch.tensor(False)}
    imported = read(save(content | {"ema": ema}), image_size=SIZE)
    assert imported.weights == "raw"
    assert torch.equal(
        imported.tensors["conv_in.weight"], content["model"]["model.init_conv.weight"]
    )


@pytest.mark.parametrize(
    "version", ["1.8.15", "0.32.0", "3.0.0", pytest.param("9" * 5000 + ".1", id="endless"), None]
)
def test_other_versions_are_refused(version: Any, content: dict[str, Any], save: Save) -> None:
    message = refusal(save(content | {"version": version}), image_size=SIZE)
    assert message.startswith(f"version {version} "[:200])
    assert message.endswith("difftool imports files of 1.9 to 2.x")


@pytest.mark.parametrize(
    ("unet", "message"),
    [
        ({"self_condition": True}, "has self_condition"),
        ({"learned_sinusoidal_cond": True}, "has learned_sinusoidal_cond or random_fourier"),
        ({"out_dim": 5}, "takes 3 channels and gives 5"),
    ],
)
def test_other_networks_are_refused_by_name(
    unet: dict[str, Any],
    message: str,
    library: types.ModuleType,
    content: dict[str, Any],
    save: Save,
) -> None:
    network = library.Unet(**SMALL, **unet).state_dict()
    model = buffers(content) | {f"model.{name}": value for name, value in network.items()}
    assert message in refused(content, model, save)


def buffers(content: dict[str, Any]) -> dict[str, Any]:
    """Return what GaussianDiffusion keeps next to its network."""
    return {k: value for k, value in content["model"].items() if not k.startswith("model.")}


def refused(content: dict[str, Any], model: dict[str, Any], save: Save) -> str:
    """Return why a file of this model, without an average, is not imported."""
    return refusal(save(content | {"model": model, "ema": {}}), image_size=SIZE)


def test_other_processes_are_refused(content: dict[str, Any], save: Save) -> None:
    continuous = {k: v for k, v in content["model"].items() if k not in buffers(content)}
    assert "no betas, so its process is not" in refused(content, continuous, save)
    unknown = content["model"] | {"loss_weight": torch.linspace(1, 2, 24)}
    assert "none of the objectives pred_noise, pred_x0" in refused(content, unknown, save)


def test_tensors_that_do_not_fit_are_named(content: dict[str, Any], save: Save) -> None:
    model = dict(content["model"])
    model["model.downs.0.1.extra"] = model.pop("model.downs.0.1.mlp.1.bias")
    model["model.mid_attn.mem_kv"] = torch.zeros(2, 4, 3, 32)
    said = refused(content, model, save)
    assert "missing: downs.0.1.mlp.1.bias; surplus: downs.0.1.extra" in said
    assert "of another shape: mid_attn.mem_kv [2, 4, 3, 32] for [2, 4, 4, 32]" in said


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model.downs.0.3.1.weight", torch.zeros(4), "of another shape: downs.0.3.1.weight [4]"),
        ("model.downs.0.3.1.weight", torch.zeros(0, 4), "downs.0.3.1.weight [0, 4] for"),
        (f"model.downs.{'9' * 5000}.x", torch.zeros(1), "surplus: downs.999"),
    ],
    ids=["one axis", "empty", "endless number"],
)
def test_wild_tensors_are_refused(
    name: str, value: torch.Tensor, message: str, content: dict[str, Any], save: Save
) -> None:
    assert message in refused(content, content["model"] | {name: value}, save)


def test_an_average_of_no_network_is_refused(content: dict[str, Any], save: Save) -> None:
    ema = {f"ema_model.{name}": value for name, value in buffers(content).items()}
    path = save(content | {"ema": ema})
    assert "missing: time_mlp.1.weight" in refusal(path, image_size=SIZE)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"sampling_timesteps": 25}, "sampling_timesteps is 25, and the model has 24"),
        ({"auto_normalize": "false"}, "auto_normalize is False"),
        ({"sinusoidal_pos_emb_theta": 100}, "sinusoidal_pos_emb_theta is 100"),
        ({"resnet_block_groups": 4}, "no setting 'resnet_block_groups'"),
    ],
)
def test_what_cannot_be_said(
    said: dict[str, Any], message: str, content: dict[str, Any], save: Save
) -> None:
    with pytest.raises(UsageError, match=message):
        read(save(content), image_size=SIZE, **said)
