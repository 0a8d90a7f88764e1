"""difftool compile --portable, export --portable, and programs for other languages."""

import json
import struct
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import difftool as library
from difftool.bundle import read_bundle
from difftool.diffusion.samplers import ddim, dpmpp_2m
from difftool.files import sha256_of
from tests.cli.conftest import Command, tree


def draw(path: Path, **given: np.ndarray) -> np.ndarray:
    """Two samples of seed 3 by a file."""
    session = onnxruntime.InferenceSession(path)
    feeds = {"seed": np.array([3], np.uint64), "n": np.array([2])}
    samples: np.ndarray = session.run(["samples"], {**feeds, **given})[0]
    return samples


def test_compile_writes_a_sampler_of_the_program_that_is_asked_for(
    difftool: Command, tiny_bundle: Path, tmp_path: Path
) -> None:
    line = ("compile", tiny_bundle, "--portable", "--sampler", "dpmpp_2m", "--steps", 6)
    done = difftool(*line, "--json")
    assert (done.code, done.err) == (0, "")
    path = tmp_path / "sampler.onnx"
    model = library.load(tiny_bundle)
    program = dpmpp_2m(model.spec, steps=6)
    assert json.loads(done.out) == {
        "out": "sampler.onnx",
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "program": program.name,
        "precision": "fp32",
    }
    np.testing.assert_allclose(draw(path), model.sample(program, n=2, seed=3), rtol=0, atol=1e-4)
    again = difftool(*line)
    assert (again.code, again.err.splitlines()[0]) == (2, "error: sampler.onnx exists")
    assert difftool(*line, "--force").code == 0


def test_export_puts_the_sampler_into_the_bundle(
    difftool: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    line = ("export", tiny_checkpoint, "--out", "b", "--portable", "--steps", 6, "--json")
    done = difftool(*line)
    assert (done.code, done.err) == (0, "")
    assert "sampler.onnx" in json.loads(done.out)["files"]
    bundle = read_bundle(tmp_path / "b")
    assert bundle.default_program().nfe == 6
    wanted = library.load(tmp_path / "b").sample(n=2, seed=3)
    np.testing.assert_allclose(draw(bundle.file("sampler.onnx")), wanted, rtol=0, atol=1e-4)


def test_a_packed_program_is_what_the_sampler_takes(
    difftool: Command, tiny_bundle: Path, tmp_path: Path
) -> None:
    line = ("program", tiny_bundle, "--sampler", "ddim", "--steps", 5, "--out", "program.bin")
    assert difftool(*line).code == 0
    data = (tmp_path / "program.bin").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    name = header.pop("__metadata__")["program"]
    arrays = {}
    for key, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        assert (entry["dtype"], begin % 4) == ("F32", 0)
        arrays[key] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    assert difftool("compile", tiny_bundle, "--portable").code == 0
    model = library.load(tiny_bundle)
    program = ddim(model.spec, steps=5)
    assert name == program.name
    got = draw(tmp_path / "sampler.onnx", **arrays)
    np.testing.assert_allclose(got, model.sample(program, n=2, seed=3), rtol=0, atol=1e-4)


def test_a_packed_program_is_read_by_safetensors(
    difftool: Command, tiny_bundle: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    line = ("program", tiny_bundle, "--sampler", "ddim", "--steps", 5, "--out", "program.bin")
    assert difftool(*line).code == 0
    arrays = load_file(tmp_path / "program.bin")
    program = ddim(read_bundle(tiny_bundle).spec, steps=5)
    np.testing.assert_array_equal(arrays["table"], program.table.astype(np.float32))
    np.testing.assert_array_equal(arrays["cond"], program.conds.astype(np.float32))
    np.testing.assert_array_equal(arrays["start"], np.float32([0, 0, 1]))


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ((), "say --trt or --portable"),
        (("--trt", "--portable"), "say --trt or --portable"),
        (("--trt", "--steps", "4"), "leave the sampler out"),
        (("--portable", "--gpu", "sm89"), "say --trt instead"),
        (("--portable", "--precision", "int8"), "make it: difftool quantize"),
    ],
)
def test_what_makes_no_file_is_refused(
    difftool: Command, tiny_bundle: Path, tmp_path: Path, options: tuple[str, ...], hint: str
) -> None:
    done = difftool("compile", tiny_bundle, *options)
    assert done.code in (2, 3)
    assert hint in done.err.splitlines()[1]
    assert len(done.err.splitlines()) == 2
    assert tree(tmp_path) == {}
