"""Models by their hub id: fetched from a server on this machine by the hub's own library."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from difftool.files import file_sha256
from difftool.networks.trained import load_checkpoint
from tests.cli.conftest import Command, Refusal, tree
from tests.cli.hub_server import COMMIT, HubServer
from tests.oracles.plain_openai import Shape
from tests.reliability.forked import PATIENCE

SMALL = Shape(widths=(32,), attention=(), updown=False, outputs=3)
FLAGS = {"num_heads": 1, "diffusion_steps": 1000, "noise_schedule": "linear", "image_size": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published model: weights and their flags, and much that nobody may fetch."""
    folder = tmp_path_factory.mktemp("model")
    torch.save(SMALL.random_state(), folder / "ema.pt")
    torch.save({}, folder / "optimizer.pt")
    torch.save({}, folder / "ema.fp16.pt")
    (folder / "flags.json").write_text(json.dumps(FLAGS))
    for name in ("README.md", "modeling.py", "training.pkl", "data/samples.pt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\x80")
    return folder


@pytest.fixture
def hub(
    model: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    """A hub of two models, which the library in this process asks instead of the real one."""
    two = tmp_path_factory.mktemp("two")
    for name in ("a.pt", "b.ckpt"):
        (two / name).write_bytes(b"\x80")
    models = {"owner/model": model, "owner/two": two, "owner/none": two / "nothing"}
    with HubServer(models) as server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(
            constants.ENDPOINT, server.endpoint
        )
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr("difftool.importers.hub.TIMEOUT", PATIENCE)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        cache = tmp_path_factory.mktemp("cache") / "hub"
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        yield server


def test_import_in_a_process_of_its_own(
    spawn: Command, hub: HubServer, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only the hub's own environment variables are set."""
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    source = spawn("import", "owner/model", "--out", "mine", "--json").json()["source"]
    assert source["hub"] == {"id": "owner/model", "revision": COMMIT}
    assert source["format"] == "improved-diffusion"
    assert source["sha256"] == {
        name: file_sha256(model / name) for name in ("ema.pt", "flags.json")
    }
    assert hub.fetched == {"ema.pt", "flags.json"}
    config = load_checkpoint(tmp_path / "mine").config
    assert config["source"] == source
    assert source["parameters"] == sum(t.numel() for t in SMALL.random_state().values())


@pytest.mark.parametrize("revision", ["", "@v1", f"@{COMMIT}"])
def test_inspect_fetches_once(
    revision: str, difftool: Command, hub: HubServer, tmp_path: Path
) -> None:
    name = f"owner/model{revision}"
    for _ in range(2):
        value = difftool("inspect", name, "--json").json()
        assert value["source"]["hub"] == {"id": "owner/model", "revision": COMMIT}
        assert value["path"] == name
    assert sum(path.startswith("/store/") for path in hub.asked) == 1
    assert tree(tmp_path) == {}


def test_models_lists_what_was_fetched(difftool: Command, hub: HubServer, model: Path) -> None:
    assert difftool("models", "--json").json()["cached"] == {}
    difftool("inspect", "owner/model")
    found = difftool("models", "--json").json()["cached"]
    size = sum((model / name).stat().st_size for name in ("ema.pt", "flags.json"))
    files = ["ema.pt", "flags.json"]
    assert found == {f"owner/model@{COMMIT[:12]}": {"files": files, "bytes": size}}


def test_export_and_verify_take_it_too(difftool: Command, hub: HubServer) -> None:
    done = difftool("export", "owner/model", "--out", "b", "--steps", 2)
    assert done.code == 0, done.err
    assert done.err.startswith("importing owner/model: openai/improved-diffusion")
    assert difftool("verify", "b", "owner/model").code == 0
    difftool("verify", "b", "--set", "num_heads=1").refused(2, "--set need CHECKPOINT")


def test_files_go_before_the_hub(
    difftool: Command, hub: HubServer, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner/model").symlink_to(model / "ema.pt")
    value = difftool("inspect", "owner/model", "--json").json()
    assert value["from"] == "openai/improved-diffusion or openai/guided-diffusion"
    assert "diffusion_steps" in value["to say"]
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/nothing", "there is no owner/nothing, neither here nor on the hub"),
        ("owner/model@v9", "owner/model on the hub has no revision v9"),
        ("owner/gated", "owner/gated on the hub asks for a login"),
        ("owner/two", "several files of weights: a.pt, b.ckpt"),
        ("owner/none", "owner/none on the hub has no file of weights"),
    ],
)
def test_what_the_hub_has_not(name: str, message: str, refuses: Refusal, hub: HubServer) -> None:
    for line in (["import", name, "--out", "x"], ["export", name, "--out", "x"], ["inspect", name]):
        refuses(line, 3, message)
    assert hub.fetched == set()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("setting", "value"), [("HF_HUB_OFFLINE", True), ("ENDPOINT", "http://127.0.0.1:9")]
)
def test_without_a_connection(
    setting: str, value: object, refuses: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, setting, value)
    refuses(
        ["import", "owner/model", "--out", "mine"],
        3,
        "there is no owner/model here, and fetching it from the hub fails: ",
        "hint: check the spelling and the connection",
    )


def test_a_broken_download_leaves_nothing(
    difftool: Command, refuses: Refusal, hub: HubServer
) -> None:
    hub.cut = True
    refuses(["import", "owner/model", "--out", "mine"], 3, "fetching it from the hub fails")
    size = (hub.models["owner/model"] / "ema.pt").stat().st_size
    cached = [path for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_file()]
    assert all(path.stat().st_size < size // 2 for path in cached)  # no part of the weights
    hub.cut = False
    assert difftool("import", "owner/model", "--out", "mine").code == 0


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in parts, as diffusers publishes it."""
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(32,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    folder = tmp_path_factory.mktemp("pipeline")
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(folder)
    (folder / "README.md").write_text("")
    return folder


def test_a_pipeline_of_diffusers(difftool: Command, hub: HubServer, pipeline: Path) -> None:
    """From the hub, and from a folder whose own top has no weights."""
    hub.models["owner/pipeline"] = pipeline
    source = difftool("import", "owner/pipeline", "--out", "mine", "--json").json()["source"]
    assert source["hub"] == {"id": "owner/pipeline", "revision": COMMIT}
    assert source["format"] == "diffusers"
    assert source["assumed"] == []
    weights = "unet/diffusion_pytorch_model.safetensors"
    parts = {"model_index.json", "scheduler/scheduler_config.json", "unet/config.json", weights}
    assert hub.fetched == parts
    assert source["sha256"] == {Path(name).name: file_sha256(pipeline / name) for name in parts}

    asked = list(hub.asked)
    inspected = difftool("inspect", pipeline, "--json").json()
    assert inspected["source"]["format"] == "diffusers"
    assert difftool("export", pipeline, "--out", "b", "--steps", 2).code == 0
    assert difftool("verify", "b", pipeline).code == 0
    assert hub.asked == asked
