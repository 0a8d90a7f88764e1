"""difftool import, and what inspect and export make of another's files."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from difftool.bundle import read_bundle
from difftool.files import file_sha256
from difftool.networks.trained import load_checkpoint
from tests.cli.conftest import Command, Refusal, tree
from tests.oracles.plain_openai import Shape

SAY = ["--set", "num_heads=1", "--set", "diffusion_steps=1000", "--set", "noise_schedule=linear"]
SMALL = Shape(widths=(32,), attention=(), updown=False, outputs=3)


class Planted:
    """An object that runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._command = f"touch {marker}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A small file of improved-diffusion, with no word of its flags."""
    path = tmp_path / "weights.pt"
    torch.save(SMALL.random_state(), path)
    return path


def test_import_says_what_it_found_and_records_it(difftool: Command, shared: Path) -> None:
    source = shared / "golden/ncsn_v2_cifar32"
    value = difftool("import", source, "--out", "mine", "--json").json()
    assert value["checkpoint"] == "mine"
    assert value["source"]["format"] == "ncsnv2"
    assert value["source"]["weights"] == "ema"
    assert value["source"]["settings"]["sampling.step_lr"] == 6.2e-6
    assert value["source"]["sha256"] == {
        name: file_sha256(source / name) for name in ("checkpoint.pth", "config.yml")
    }
    assert value["spec"]["schedule"] == "geometric(levels=232, sigma_min=0.01, sigma_max=50)"
    assert 0 < value["source"]["largest_outputs"][0] < 100
    loaded = load_checkpoint("mine")
    assert loaded.config["source"] == value["source"]
    assert (loaded.step, loaded.weights) == (1234, "ema")
    assert value["parameters"] == sum(p.numel() for p in loaded.network.parameters())
    assert difftool("inspect", "mine", "--json").json()["source"] == value["source"]


def test_inspect_finds_the_format(difftool: Command, shared: Path, tmp_path: Path) -> None:
    source = shared / "golden/improved_diffusion_learned_sigma"
    value = difftool("inspect", source, "--json").json()
    assert (value["kind"], value["format"]) == ("public format", "improved-diffusion")
    assert value["program"] == "ddpm(steps=20, variance='learned', clip=True)"
    assert value["network"]["heads"] == 2
    assert tree(tmp_path) == {}


def test_inspect_says_what_would_have_to_be_said(difftool: Command, weights: Path) -> None:
    value = difftool("inspect", weights, "--json").json()
    missing = ["image_size", "num_heads", "diffusion_steps", "noise_schedule", "rescale_timesteps"]
    assert list(value["to say"]) == missing


def test_export_takes_another_s_files(difftool: Command, weights: Path, tmp_path: Path) -> None:
    done = difftool("export", weights, *SAY, "--set", "image_size=8", "--out", "b", "--steps", 5)
    assert done.code == 0, done.err
    assert done.err.startswith(f"importing {weights}: openai/improved-diffusion")
    assert {path.name for path in tmp_path.iterdir()} == {"weights.pt", "b"}
    assert read_bundle("b").default_program().name == "ddpm(steps=5, variance='large', clip=True)"
    assert difftool("sample", "b", "-n", 1, "--out", "one.png").code == 0


@pytest.mark.parametrize(
    ("trap", "reason"),
    [
        ("pickle", "asks to run posix.system"),
        ("yaml", "asks for the tag python/object/apply:os.system"),
        ("cut", "is not a whole file"),
        ("other", "holds model, and is of no format"),
    ],
)
def test_a_file_that_is_not_safe_is_refused(
    trap: str, reason: str, refuses: Refusal, shared: Path, tmp_path: Path
) -> None:
    """Exit code 3, nothing executed, nothing written."""
    source, marker = tmp_path / "source", tmp_path / "ran"
    shutil.copytree(shared / "golden/ncsn_v1_mnist28", source)
    for path in (source, *source.iterdir()):
        path.chmod(0o755)
    file, config = source / "checkpoint.pth", source / "config.yml"
    if trap == "pickle":
        content = torch.load(file, weights_only=True)
        torch.save([*content, Planted(marker)], file)
    elif trap == "yaml":
        tag = f"x: !!python/object/apply:os.system ['touch {marker}']"
        config.write_text(config.read_text() + tag)
    elif trap == "cut":
        file.write_bytes(file.read_bytes()[:-1000])
    else:
        torch.save({"model": {"a": torch.zeros(2)}}, file)
    for line in (
        ["import", file, "--out", "mine"],
        ["export", file, "--out", "b"],
        ["inspect", file],
    ):
        refuses(line, 3, reason)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("import {weights} --out mine", 2, "does not tell image_size, num_heads"),
        ("import {weights} --out mine --set num_heads", 2, "is no name=value"),
        ("import {weights} --out mine --set heads=1", 2, "no setting 'heads'"),
        ("import {weights} --out mine --as tf", 2, "unknown format 'tf'"),
        ("import {weights} --out mine --as ncsn", 3, "of no format that difftool imports"),
        ("import {weights} --out weights.pt", 2, "weights.pt exists"),
        ("import {weights} --out weights.pt --force", 2, "weights.pt is not a checkpoint"),
        ("import nowhere --out mine", 3, "there is no nowhere"),
        ("import . --out mine", 2, "does not tell"),
        ("export {checkpoint} --out b --set num_heads=1", 2, "a path that needs no import"),
        ("export {weights} --out b", 2, "does not tell image_size, num_heads"),
    ],
)
def test_bad_lines(
    line: str, code: int, message: str, refuses: Refusal, weights: Path, tiny_checkpoint: Path
) -> None:
    refuses(line.format(weights=weights, checkpoint=tiny_checkpoint).split(), code, message)


def test_a_checkpoint_gives_way_to_another_by_force(difftool: Command, weights: Path) -> None:
    line = ["import", weights, *SAY, "--out", "mine"]
    assert difftool(*line, "--set", "image_size=8").code == 0
    assert difftool(*line, "--set", "image_size=16", "--force").code == 0
    assert load_checkpoint("mine").spec.shape == (3, 16, 16)
