"""The files of a model on the hub that are fetched, and what is taken for an id there."""

from pathlib import Path

import pytest

from difftool.errors import ArtefactError
from difftool.importers.hub import choose, hub_id, located

DDPM = ["config.json", "model_index.json", "scheduler_config.json"]
NO_WEIGHTS = [[], ["m.pkl"], ["vae/m.bin"], ["../m.bin"], ["a/b/m.pt"]]
PARTS = ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"]


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (  # google/ddpm-cifar10-32
            [*DDPM, "README.md", "diffusion_pytorch_model.bin", "images/generated_image_0.png"],
            {*DDPM, "diffusion_pytorch_model.bin"},
        ),
        (  # safetensors if there are both, and no variant
            [*DDPM, "m.bin", "m.safetensors", "m.fp16.safetensors", "m.non_ema.bin"],
            {*DDPM, "m.safetensors"},
        ),
        (  # a pipeline in parts
            [*PARTS, "unet/m.safetensors", "unet/m.bin", "vae/config.json", "vae/m.safetensors"],
            {*PARTS, "unet/m.safetensors"},
        ),
        (  # a moving average beside the network
            ["unet/config.json", "unet/m.bin", "unet_ema/config.json", "unet_ema/m.bin"],
            {"unet_ema/config.json", "unet_ema/m.bin"},
        ),
        (  # what a training leaves
            ["model-9.pt", "optimizer.pt", "scheduler.bin", "rng_state.pth", "training_args.bin"],
            {"model-9.pt"},
        ),
        (  # code and pickles
            ["run.py", "config.yml", "state.pkl", "checkpoint.pth", "model.msgpack", "a.onnx"],
            {"config.yml", "checkpoint.pth"},
        ),
    ],
)
def test_the_files_that_are_fetched(files: list[str], chosen: set[str]) -> None:
    names = choose(files, "owner/name")
    assert set(names) == chosen
    assert len(names) == len(chosen)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        *((files, "owner/name on the hub has no file of weights") for files in NO_WEIGHTS),
        (["a.pt", "b.pt"], r"several files of weights: a\.pt, b\.pt"),
    ],
)
def test_a_model_without_one_file_of_weights_is_refused(files: list[str], message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        choose(files, "owner/name")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *((name, True) for name in ("google/ddpm-cifar10-32", "a/b.c_d@main", "a/b@refs/pr/1")),
        *((name, False) for name in ("a", "a/b/c", "/a/b", "../b", "./b", "a/..")),
        *((name, False) for name in ("a/b@", "a/b@/c", "a b/c", "here/model")),
    ],
)
def test_what_is_taken_for_an_id(
    name: str, is_one: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here/model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert bool(hub_id(name)) == is_one
    if not is_one:
        with located(name) as found:
            assert found == (Path(name), None)
