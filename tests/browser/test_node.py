"""The example for Node: the same pixels from the same seed as in Python."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import difftool
from difftool.cli import main
from difftool.diffusion.samplers import ddpm, dpmpp_2m

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "node" / "sample.mjs"


@pytest.fixture
def sample(node: str, modules: Path, tmp_path: Path) -> Any:
    """Run the example on a file, and read its picture [n, h, w]."""
    shutil.copyfile(EXAMPLE, tmp_path / "sample.mjs")
    (tmp_path / "node_modules").symlink_to(modules)

    def run(*arguments: object) -> np.ndarray:
        command = [node, "sample.mjs", "sampler.onnx", "out.pgm", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        with Image.open(tmp_path / "out.pgm") as picture:
            return np.asarray(picture).reshape(-1, picture.width, picture.width)

    return run


def test_the_default_program(sample: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compile", "ddpm-mnist", "--portable", "--steps", "200"]) == 0
    model = difftool.load("ddpm-mnist", backend="onnxruntime-cpu")
    program = ddpm(model.spec, steps=200, variance="large")
    seed = 2**64 - 1
    wanted = difftool.to_uint8(model.sample(program, n=2, seed=seed), model.spec)[..., 0]
    assert np.abs(sample(seed, 2).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(("name", "steps"), [("ddpm-mnist", 20), ("ncsn-mnist", 10)])
def test_another_program_from_a_file(
    sample: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, steps: int
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--sampler", "dpmpp_2m", "--steps", str(steps))
    assert main(["compile", name, "--portable"]) == 0
    assert main(["program", name, *options, "--out", "program.bin"]) == 0
    model = difftool.load(name, backend="onnxruntime-cpu")
    program = dpmpp_2m(model.spec, steps=steps)
    wanted = difftool.to_uint8(model.sample(program, n=3, seed=11), model.spec)[..., 0]
    assert np.abs(sample(11, 3, "program.bin").astype(int) - wanted).max() <= 1
