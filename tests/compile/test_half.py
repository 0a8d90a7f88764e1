"""`difftool.compile.half`: a bundle that also has a step graph in 16 bits."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import difftool
from difftool.bundle import STEP, read_bundle
from difftool.compile.precision import in_half
from difftool.errors import UsageError


def test_half_adds_the_graph_that_engines_are_made_from(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "b"
    shutil.copytree(tiny_bundle, folder)
    made = difftool.compile.half(folder, "bf16")
    assert made.path == folder / "step.bf16.onnx"
    assert onnx.load(made.path) == in_half(onnx.load(tiny_bundle / STEP), "bf16")
    assert made.bundle.step("bf16").data == made.path.read_bytes()
    assert made.bundle.file(STEP).read_bytes() == (tiny_bundle / STEP).read_bytes()
    assert capsys.readouterr() == ("", "")
    with pytest.raises(UsageError, match="has bf16 already"):
        difftool.compile.half(folder, "bf16")
    difftool.compile.half(folder, "bf16", force=True)


def test_onnx_runtime_draws_the_samples_of_fp32_from_fp16(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    made = difftool.compile.half(tiny_bundle, out=tmp_path / "b")
    assert set(made.bundle.manifest.files) > set(read_bundle(tiny_bundle).manifest.files)
    fp16, fp32 = (
        difftool.load(made.bundle, backend="onnxruntime-cpu", precision=precision, threads=1)
        for precision in ("fp16", "fp32")
    )
    difference = np.abs(fp16.sample(n=2, seed=0) - fp32.sample(n=2, seed=0)).max()
    assert 0 < difference < 0.02


def test_only_16_bits_are_half(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown half precision 'fp32'"):
        difftool.compile.half(tiny_bundle, "fp32", out=tmp_path / "b")
    assert not (tmp_path / "b").exists()
