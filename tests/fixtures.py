"""Tiny models with random weights, as checkpoints and bundles."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from difftool.bundle import Bundle, EngineKey
from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.features import Feature
from difftool.diffusion.schedules import geometric, linear
from difftool.diffusion.spec import ModelSpec
from difftool.files import locked

IMAGE_SPEC = ModelSpec(
    shape=(1, 8, 8),
    schedule=linear(steps=20, beta_end=0.4),
    parameterization="epsilon",
    cond="timestep",
    data_range=(-1.0, 1.0),
)
IMAGE_NETWORK = NetworkCall(
    "unet",
    {
        "in_channels": 1,
        "out_channels": 1,
        "channels": 8,
        "multipliers": [1],
        "attention": [],
        "blocks": 1,
        "groups": 4,
    },
)
CLASSES_SPEC = replace(IMAGE_SPEC, classes=3, null_label=True)
CLASSES_NETWORK = NetworkCall("unet", {**IMAGE_NETWORK.arguments, "classes": 3, "null_label": True})
POINTS_SPEC = ModelSpec(
    shape=(2,),
    schedule=geometric(levels=5, sigma_min=0.1, sigma_max=5.0),
    parameterization="scaled_score",
    cond="level",
)
POINTS_NETWORK = NetworkCall("mlp", {"dimensions": 2, "hidden": 16, "levels": 5})

ENGINE_KEY = EngineKey(
    onnx_sha256="1" * 64,
    recipe=1,
    flavour="tensorrt-rtx",
    version="1.7",
    gpus=("sm89",),
    precision="fp32",
    profile=(1, 8, 64),
)


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> MakeOnce:
    """Return a folder by its name; the first of pytest-xdist's processes makes it for all."""
    root = tmp_path_factory.getbasetemp()
    if hasattr(pytestconfig, "workerinput"):  # each process has a folder in a common one
        root = root.parent

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        made, part = root / "once" / name, root / "once" / f"{name}.part"
        with locked(root / "locks" / name, wait=True):
            if not made.exists():
                make(part)
                part.rename(made)
        return made

    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(made_once: MakeOnce) -> Path:
    """A run folder with one checkpoint of a DDPM for 8x8 grey images; 20 levels."""
    ddpm = SamplerCall("ddpm")
    return made_once("tiny", lambda run: save_model(run, IMAGE_SPEC, IMAGE_NETWORK, ddpm))


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, made_once: MakeOnce) -> Path:
    """The bundle of `tiny_checkpoint`; its default program is ddpm with 20 steps."""
    return export_once(made_once, "tiny", tiny_checkpoint)


@pytest.fixture(scope="session")
def featured_bundle(tiny_checkpoint: Path, made_once: MakeOnce) -> Path:
    """The bundle of `tiny_checkpoint` whose step graph holds known values and computes norms."""
    return export_once(made_once, "fused", tiny_checkpoint, (Feature.KNOWN, Feature.NORMS))


@pytest.fixture(scope="session")
def packaged_bundle(tiny_checkpoint: Path, made_once: MakeOnce) -> Path:
    """The bundle of `tiny_checkpoint` that holds known values, with a package for this CPU.

    It takes a C++ compiler and much of a minute.
    """
    from difftool.export import export

    def make(folder: Path) -> None:
        export(tiny_checkpoint, folder / "tiny", features=(Feature.KNOWN,), aot="fp32")

    return made_once("packaged-bundle", make) / "tiny"


def package_digest(bundle: Bundle) -> str:
    """Return what a user names who trusts a bundle's package."""
    return bundle.manifest.files["step.pt2"].sha256


@pytest.fixture(scope="session")
def classes_checkpoint(made_once: MakeOnce) -> Path:
    """The same as `tiny_checkpoint` of a model with 3 classes and a null label."""
    ddpm = SamplerCall("ddpm")
    return made_once("classes", lambda run: save_model(run, CLASSES_SPEC, CLASSES_NETWORK, ddpm))


@pytest.fixture(scope="session")
def classes_bundle(classes_checkpoint: Path, made_once: MakeOnce) -> Path:
    """The bundle of `classes_checkpoint` whose step graph computes guidance."""
    return export_once(made_once, "classes", classes_checkpoint, (Feature.GUIDANCE,))


@pytest.fixture(scope="session")
def points_checkpoint(made_once: MakeOnce) -> Path:
    """A run folder with one checkpoint of an NCSN for points in the plane; 5 levels."""
    arguments = {"steps": 50, "step_size": 1e-4, "convention": "paper"}
    sampler = SamplerCall("annealed_langevin", arguments)
    return made_once("points", lambda run: save_model(run, POINTS_SPEC, POINTS_NETWORK, sampler))


@pytest.fixture(scope="session")
def points_bundle(points_checkpoint: Path, made_once: MakeOnce) -> Path:
    """The bundle of `points_checkpoint`; its default program is annealed Langevin with 50 steps."""
    return export_once(made_once, "points", points_checkpoint)


def export_once(
    made_once: MakeOnce, name: str, checkpoint: Path, features: tuple[Feature, ...] = ()
) -> Path:
    """Return a bundle, in a folder that holds nothing else."""
    around = made_once(
        f"{name}-bundle", lambda folder: export_model(checkpoint, folder / name, features)
    )
    return around / name


def save_model(
    run: Path, spec: ModelSpec, network: NetworkCall, sampler: SamplerCall, *, seed: int = 0
) -> Path:
    import torch

    from difftool import checkpoint as ckpt
    from difftool.networks import build_network

    module = build_network(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # the networks' own initialization ends in zeros
        weights = {
            name: 0.2 * torch.randn(value.shape, generator=generator)
            for name, value in module.state_dict().items()
        }
    ckpt.save_checkpoint(
        run / "checkpoints" / "step-000000007",
        step=7,
        spec=spec,
        network=network,
        training=None,
        sampler=sampler,
        tensors={ckpt.EMA: weights, ckpt.MODEL: {k: 2 * v for k, v in weights.items()}},
    )
    return run


def export_model(checkpoint: Path, out: Path, features: tuple[Feature, ...] = ()) -> Path:
    from difftool.export import export

    return export(checkpoint, out, features=features).path


@pytest.fixture(scope="session")
def toy_recipe() -> str:
    """A configuration, as TOML, that trains a small NCSN on points in the plane within a second."""
    return """
method = "ncsn"
[data]
source = "gaussians"
count = 100
[network]
kind = "mlp"
parameterization = "scaled_score"
arguments = {hidden = 8}
[schedule]
kind = "geometric"
levels = 5
sigma_min = 0.1
sigma_max = 5.0
[loss]
kind = "denoising"
[optimizer]
lr = 1e-3
[sampler]
name = "annealed_langevin"
arguments = {steps = 50, step_size = 1e-4}
[run]
steps = 2
batch = 8
"""
