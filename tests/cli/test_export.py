"""difftool export: a bundle, as it was asked for."""

import re
from pathlib import Path
from unittest.mock import Mock

import pytest

from difftool.bundle import TORCHSCRIPT, file_entries, read_bundle
from tests.cli.conftest import Command


def test_the_bundle_is_as_asked_for(
    difftool: Command, points_checkpoint: Path, tmp_path: Path
) -> None:
    walk = ("--sampler", "langevin", "--steps", 30, "--arg", "step_size=0.01")
    line = ("export", points_checkpoint, "--out", "raw", "--raw", "--torchscript", *walk)
    assert difftool(*line).code == 0
    bundle = read_bundle(tmp_path / "raw")
    assert bundle.default_program().name.startswith("langevin(steps=30, step_size=0.01, ")
    assert bundle.manifest.provenance.weights == "raw"
    assert TORCHSCRIPT in bundle.manifest.files


def test_a_package_in_a_precision(
    difftool: Command, points_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its compiler is tried in tests/export."""
    line = ("export", points_checkpoint, "--out", "b", "--precision", "bf16")
    difftool(*line).refused(2, "--precision needs --trt or --aot")
    difftool(*line, "--aot", "--profile", "1,2,3").refused(2, "--gpu and --profile need --trt")
    make = Mock(side_effect=lambda module, path, precision: path.write_bytes(b"a package"))
    monkeypatch.setattr("difftool.export.bundle.aot_package", make)
    found = difftool(*line, "--aot", "--json").json()
    assert "step.bf16.pt2" in found["files"]
    assert make.call_args.args[2] == "bf16"


def test_a_report(difftool: Command, points_checkpoint: Path, tmp_path: Path) -> None:
    value = difftool("export", points_checkpoint, "--out", "b", "--steps", 20, "--json").json()
    assert value["bundle"] == "b"
    assert value["program"].startswith("annealed_langevin(steps=20, step_size=0.0001, ")
    assert value["weights"] == "ema"
    assert value["files"] == file_entries(tmp_path / "b")
    said = difftool("export", points_checkpoint, "--out", "c", "--steps", 20).out
    assert re.fullmatch(r"[\d,]+ parameters, 2 files -> c \(\d\.\d MB\)\n", said)
