"""difftool inspect: a bundle, a run and its checkpoint are described."""

from pathlib import Path

from difftool.bundle import file_entries
from difftool.files import file_sha256
from tests.cli.conftest import Command


def test_a_bundle(difftool: Command, tiny_bundle: Path) -> None:
    value = difftool("inspect", tiny_bundle, "--json").json()
    assert value["kind"] == "bundle"
    assert value["program"] == "ddpm(steps=20, variance='small', clip=True)"
    assert value["files"] == file_entries(tiny_bundle)
    assert value["bytes"] == sum(entry["size"] for entry in value["files"].values())
    assert value["spec"]["shape"] == [1, 8, 8]
    assert value["spec"]["levels"] == 20
    assert value["network"]["kind"] == "unet"


def test_a_run_and_its_checkpoint(difftool: Command, tiny_checkpoint: Path) -> None:
    folder = tiny_checkpoint / "checkpoints" / "step-000000007"
    run, one = (difftool("inspect", path, "--json").json() for path in (tiny_checkpoint, folder))
    assert run == one
    assert run["kind"] == "checkpoint"
    assert run["step"] == 7
    assert run["checkpoints"] == ["step-000000007"]
    assert run["files"]["ema.safetensors"]["sha256"] == file_sha256(folder / "ema.safetensors")
    bundled = 4 * run["network"]["parameters"]  # float32; a safetensors file also has a header
    assert bundled < run["files"]["ema.safetensors"]["size"] < bundled + 8192


def test_people_get_an_outline(difftool: Command, points_bundle: Path) -> None:
    lines = difftool("inspect", points_bundle).out.splitlines()
    assert "  schedule          geometric(levels=5, sigma_min=0.1, sigma_max=5)" in lines
    assert "  sigma             [0.1, 5]" in lines
    assert "  data_range        none" in lines
    assert max(map(len, lines)) < 120
