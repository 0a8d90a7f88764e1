"""All that changes the form of a bundle works if PyTorch is not installed."""

from pathlib import Path

import pytest

from difftool.compile.sampler_onnx.site import RUNTIME
from tests.cli.conftest import WITHOUT_TORCH, Command, spawn  # noqa: F401

LINES = (
    "quantize bundle --steps 2 --out int8",
    "compile bundle --portable --out sampler.onnx",
    "compile bundle --onnx --precision fp16 --out half",
    "web bundle --runtime ort --out site",
    "compile bundle --triton models",
    "compile bundle --trt --gpu sm89 --precision fp16 --profile 1,1,1 --out x.engine",
)
FIRST = f"""
from difftool.cli import main
for line in {LINES!r}:
    assert main(line.split()) == 0, line
"""


def test_commands_without_torch(
    spawn: Command,  # noqa: F811
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIFFTOOL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bundle").symlink_to(tiny_bundle)
    (tmp_path / "ort").mkdir()
    for file in RUNTIME:
        (tmp_path / "ort" / file).touch()
    last = "sample bundle --steps 2 -n 1 --quiet --out x.npy"
    done = spawn(*last.split(), setup=WITHOUT_TORCH + FIRST)
    assert (done.code, done.err) == (0, "")
    for line in (*LINES, last):
        assert (tmp_path / line.split()[-1]).exists(), line
