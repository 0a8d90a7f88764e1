"""All that changes the form of a bundle works if PyTorch is not installed."""

from pathlib import Path

import pytest

from difftool.compile.sampler_onnx.site import RUNTIME
from tests.cli.conftest import WITHOUT_TORCH, Command, spawn  # noqa: F401

LINES = {
    "quantize": "quantize bundle --steps 2 --out int8",
    "portable": "compile bundle --portable --out sampler.onnx",
    "web": "web bundle --runtime ort --out site",
    "tensorrt": "compile bundle --trt --gpu sm89 --precision fp16 --profile 1,1,1 --out x.engine",
    "sample": "sample bundle --steps 2 -n 1 --out x.npy",
}


@pytest.mark.parametrize("name", LINES)
def test_a_command_without_torch(
    name: str,
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
    words = LINES[name].split()
    done = spawn(*words, setup=WITHOUT_TORCH)
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / words[-1]).exists()
