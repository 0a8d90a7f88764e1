"""difftool quantize: int8 for a bundle, or nothing at all."""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difftool.bundle import read_bundle
from difftool.cli import main
from difftool.compile.quantization import bundle as quantize
from difftool.errors import CheckFailed, install_hint
from tests.cli.conftest import Command, Refusal, tree


@pytest.fixture(scope="module")
def reported(classes_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report of a command that makes a bundle of 20 steps with int8."""
    out, printed = str(tmp_path_factory.mktemp("int8") / "bundle"), io.StringIO()
    line = ["quantize", str(classes_bundle), "--sampler", "ddim", "--steps", "8", "--out", out]
    with contextlib.redirect_stdout(printed):
        assert main([*line, "--seed", "3", "--json"]) == 0
    return json.loads(printed.getvalue())


@pytest.fixture
def int8_bundle(reported: Any) -> Path:
    return Path(reported["bundle"])


def test_it_is_reported(reported: Any, int8_bundle: Path) -> None:
    assert reported["calibration"] == {
        "source": "self",
        "program": "ddim(steps=8, eta=0.0, clip=True, raw_epsilon=False)",
        "rows": 8,
        "samples": 16,
        "seed": 3,
    }
    assert {"conv_in", "conv_out"} <= set(reported["fp32_layers"])
    assert reported["int8_layers"] + len(reported["fp32_layers"]) == 18
    assert reported["over_own_ranges"]["worst"] < reported["over_own_ranges"]["limit"]
    assert reported["bounds"] == read_bundle(int8_bundle).manifest.bounds["int8"].model_dump()


def test_it_is_sampled_and_verified(difftool: Command, int8_bundle: Path) -> None:
    for precision in ("int8", "fp32"):
        out = f"{precision}.npy"
        line = ["sample", int8_bundle, "--precision", precision, "-n", 2, "--out", out, "--json"]
        assert difftool(*line).json()["precision"] == precision
    assert 0 < np.abs(np.load("int8.npy") - np.load("fp32.npy")).max() < 0.1
    assert difftool("verify", int8_bundle, "--precision", "int8").code == 0


def test_data_calibrate_it_in_its_place(difftool: Command, classes_bundle: Path) -> None:
    pytest.importorskip("sklearn")
    shutil.copytree(classes_bundle, "b")
    few = ["--sampler", "ddim", "--steps", 5, "--json"]
    value = difftool("quantize", "b", "--calibrate", "digits", *few).json()
    assert (value["bundle"], value["calibration"]["source"]) == ("b", "digits")
    assert "step.int8.onnx" in read_bundle("b").manifest.files


def test_int8_is_not_replaced_unasked(difftool: Command, int8_bundle: Path) -> None:
    before = tree(int8_bundle)
    difftool("quantize", int8_bundle).refused(2, f"error: {int8_bundle} has int8 already")
    assert difftool("quantize", int8_bundle, "--out", int8_bundle).code == 2
    assert tree(int8_bundle) == before


def test_a_precision_that_is_not_there(difftool: Command, classes_bundle: Path) -> None:
    done = difftool("sample", classes_bundle, "--precision", "int8", "-n", 1)
    done.refused(3, "", f"hint: make it: difftool quantize {classes_bundle}")
    done = difftool("sample", classes_bundle, "--precision", "int4", "-n", 1)
    done.refused(2, "error: unknown precision 'int4'")


def test_a_failure_leaves_nothing(
    refuses: Refusal, classes_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise CheckFailed("int8 fails", "stay with fp32")

    monkeypatch.setattr(quantize, "require_covered", fail)
    shutil.copytree(classes_bundle, "b")
    refuses(["quantize", "b", "--sampler", "ddim", "--steps", 2], 1, "int8 fails")


def test_without_onnx(spawn: Command, classes_bundle: Path) -> None:
    done = spawn("quantize", classes_bundle, setup="import sys; sys.modules['onnx'] = None")
    done.refused(4, "error: onnx is not installed", f"hint: {install_hint('compile')}")
