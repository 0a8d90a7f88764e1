"""difftool export, verify and inspect: make a bundle, prove it, describe it."""

import json
import shutil
from pathlib import Path

import pytest

from difftool.bundle import MANIFEST, STEP, TORCHSCRIPT, file_entries, read_bundle, write_manifest
from difftool.cli import main
from difftool.files import sha256_of
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def raw_bundle(points_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last weights of `points_checkpoint`, with everything else chosen, too."""
    out = tmp_path_factory.mktemp("export") / "raw"
    walk = ["--sampler", "langevin", "--steps", "30", "--arg", "step_size=0.01"]
    line = ["export", str(points_checkpoint), "--out", str(out), "--raw", "--torchscript", *walk]
    assert main(line) == 0
    return out


def test_export_makes_what_was_asked_for(raw_bundle: Path) -> None:
    bundle = read_bundle(raw_bundle)
    assert bundle.default_program().name.startswith("langevin(steps=30, step_size=0.01, ")
    assert bundle.manifest.provenance.weights == "raw"
    assert TORCHSCRIPT in bundle.manifest.files


def test_export_reports_the_bundle(
    difftool: Command, points_checkpoint: Path, tmp_path: Path
) -> None:
    done = difftool("export", points_checkpoint, "--out", "b", "--steps", 20, "--json")
    assert (done.code, done.err) == (0, "")
    value = json.loads(done.out)
    assert value["bundle"] == "b"
    assert value["program"].startswith("annealed_langevin(steps=20, step_size=0.0001, ")
    assert value["weights"] == "ema"
    assert value["files"] == file_entries(tmp_path / "b")


def test_verify_passes_a_bundle_of_its_checkpoint(
    difftool: Command, tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    done = difftool("verify", tiny_bundle, tiny_checkpoint, "--steps", 5, "-n", 3, "--json")
    assert (done.code, done.err) == (0, "")
    value = json.loads(done.out)
    assert value["passed"] is True
    assert 0 <= value["step_error"] <= value["step_tolerance"] == 1e-4
    assert 0 <= value["worst_row"] < 5
    assert value["equal"] or value["psnr_db"] >= value["psnr_tolerance_db"]


def test_verify_fails_a_bundle_with_another_network(
    difftool: Command,
    points_bundle: Path,
    points_checkpoint: Path,
    raw_bundle: Path,
    tmp_path: Path,
) -> None:
    forged = shutil.copytree(points_bundle, tmp_path / "forged")
    shutil.copy(raw_bundle / STEP, forged / STEP)
    manifest = json.loads((forged / MANIFEST).read_text())
    write_manifest(forged, {**manifest, "files": file_entries(forged)})
    done = difftool("verify", forged, points_checkpoint)
    assert (done.code, done.err) == (1, "")
    assert done.out.startswith("passed             no\n")


def test_inspect_a_bundle(difftool: Command, tiny_bundle: Path) -> None:
    done = difftool("inspect", tiny_bundle, "--json")
    value = json.loads(done.out)
    assert value["kind"] == "bundle"
    assert value["program"] == "ddpm(steps=20, variance='small', clip=True)"
    assert value["files"] == file_entries(tiny_bundle)
    assert value["bytes"] == sum(entry["size"] for entry in value["files"].values())
    assert value["spec"]["shape"] == [1, 8, 8]
    assert value["spec"]["levels"] == 20
    assert value["network"]["kind"] == "unet"


def test_inspect_a_run_and_its_checkpoint(difftool: Command, tiny_checkpoint: Path) -> None:
    folder = tiny_checkpoint / "checkpoints" / "step-000000007"
    run, one = (
        json.loads(difftool("inspect", path, "--json").out) for path in (tiny_checkpoint, folder)
    )
    assert run == one
    assert run["kind"] == "checkpoint"
    assert run["step"] == 7
    assert run["checkpoints"] == ["step-000000007"]
    assert run["files"]["ema.safetensors"]["sha256"] == sha256_of(folder / "ema.safetensors")
    bundled = 4 * run["network"]["parameters"]  # float32; a safetensors file also has a header
    assert bundled < run["files"]["ema.safetensors"]["size"] < bundled + 8192


def test_inspect_is_readable(difftool: Command, points_bundle: Path) -> None:
    lines = difftool("inspect", points_bundle).out.splitlines()
    assert "  schedule          geometric(levels=5, sigma_min=0.1, sigma_max=5)" in lines
    assert "  sigma             [0.1, 5]" in lines
    assert "  data_range        none" in lines
    assert max(map(len, lines)) < 120
