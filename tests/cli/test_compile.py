"""difftool compile, and export --trt and --portable: a file, or a line that says why not."""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import difftool as library
from difftool.bundle import read_bundle
from difftool.diffusion.samplers import ddim, ddpm, dpmpp_2m
from difftool.errors import install_hint, pip_install
from difftool.files import file_sha256
from tests.cli.conftest import Command, Refusal

INSTALL = (
    f"{install_hint('trt-rtx')}, or for GPUs of data centres: "
    f"{pip_install('trt', '--extra-index-url https://pypi.nvidia.com')}"
)
Lines = tuple[tuple[object, ...], ...]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFTOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def lines(points_bundle: Path, points_checkpoint: Path) -> Lines:
    """The two commands that make an engine."""
    return (("compile", points_bundle), ("export", points_checkpoint, "--out", "b"))


@pytest.mark.usefixtures("rtx")
def test_an_engine_is_built_once(difftool: Command, points_bundle: Path, own_cache: Path) -> None:
    line = ("compile", points_bundle, "--trt", "--gpu", "sm89", "--profile", "1,2,4", "--json")
    value = difftool(*line).json()
    engine = Path(value["engine"])
    assert engine.parent == own_cache
    assert value["built"] is True
    assert value["sha256"] == file_sha256(engine)
    assert value["bytes"] == engine.stat().st_size
    assert value["key"]["gpus"] == ["sm89"]
    assert value["key"]["profile"] == [1, 2, 4]
    assert value["key"]["onnx_sha256"] == file_sha256(points_bundle / "step.onnx")
    assert difftool(*line).json() == {**value, "built": False}


@pytest.mark.usefixtures("rtx")
def test_an_engine_in_a_file(difftool: Command, points_bundle: Path, tmp_path: Path) -> None:
    line = ("compile", points_bundle, "--trt", "--gpu", "sm89", "--profile", "1,1,1")
    assert difftool(*line, "--out", "points.engine").code == 0
    assert (tmp_path / "points.engine").read_bytes().startswith(b"vtrt")
    difftool(*line, "--out", "points.engine").refused(2, "error: points.engine exists")
    assert difftool(*line, "--out", "points.engine", "--force").code == 0


@pytest.mark.usefixtures("rtx")
def test_export_adds_an_engine(difftool: Command, points_checkpoint: Path, tmp_path: Path) -> None:
    engine = ("--trt", "--precision", "fp16", "--gpu", "sm89,sm120", "--profile", "1,2,4")
    value = difftool("export", points_checkpoint, "--out", "b", *engine, "--json").json()
    bundle = read_bundle(tmp_path / "b")
    assert list(value["engines"]) == ["step.fp16.sm89-sm120.engine"]
    assert "step.fp16.sm89-sm120.engine" in value["files"]
    assert bundle.file("step.fp16.sm89-sm120.engine").read_bytes().startswith(b"vtrt")
    assert value["engines"] == {
        name: key.model_dump(mode="json") for name, key in bundle.manifest.engines.items()
    }


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (("--gpu", "sm10"), "does not build for sm10"),
        (("--gpu", "hopper"), "does not build for hopper"),
        (("--gpu", "sm89", "--profile", "4,2,1"), "--profile 4,2,1 is out of order"),
        (("--gpu", "sm75", "--precision", "fp8"), "sm75 has no 8-bit floats"),
        (("--gpu", "sm89", "--precision", "half"), "unknown precision 'half'"),
    ],
)
def test_refused_engines(
    refuses: Refusal, lines: Lines, options: tuple[str, ...], wrong: str
) -> None:
    for line in lines:
        refuses([*line, "--trt", *options], 2, wrong)


def test_options_of_an_engine_want_one(difftool: Command, points_checkpoint: Path) -> None:
    export = "export", points_checkpoint, "--out", "b"
    difftool(*export, "--precision", "fp16").refused(2, "--precision needs --trt or --aot")
    difftool(*export, "--gpu", "sm89").refused(2, "", "hint: add --trt")


def test_without_tensorrt(refuses: Refusal, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    for line in lines:
        refuses([*line, "--trt", "--gpu", "sm89"], 4, "error: TensorRT is not installed", INSTALL)


def test_a_bundle_with_a_graph_in_16_bits(
    difftool: Command, refuses: Refusal, tiny_bundle: Path, tmp_path: Path
) -> None:
    line = ("compile", tiny_bundle, "--onnx", "--precision")
    value = difftool(*line, "bf16", "--out", "half", "--json").json()
    assert value["graph"] == str(Path("half") / "step.bf16.onnx")
    assert value["sha256"] == file_sha256(tmp_path / "half" / "step.bf16.onnx")
    assert set(read_bundle(tmp_path / "half").manifest.files) == {
        *read_bundle(tiny_bundle).manifest.files,
        "step.bf16.onnx",
    }
    difftool(*line, "bf16", "--out", "half").refused(2, "half exists")
    assert difftool(*line, "fp16", "--out", "half", "--force").code == 0
    refuses([*line, "fp32", "--out", "b"], 2, "--onnx needs --precision", "give fp16 or bf16")
    refuses([*line, "int8", "--out", "b"], 2, "unknown half precision 'int8'")
    refuses([*line, "fp16", "--out", "b", "--steps", 3], 2, "a step graph runs any sampler")


def draw(path: Path, **given: np.ndarray) -> np.ndarray:
    """Draw two samples of seed 3 by a file."""
    session = onnxruntime.InferenceSession(path)
    feeds = {"seed": np.array([3], np.uint64), "n": np.array([2])}
    samples: np.ndarray = session.run(["samples"], {**feeds, **given})[0]
    return samples


def test_a_sampler_of_a_program(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    line = ("compile", tiny_bundle, "--portable", "--sampler", "dpmpp_2m", "--steps", 6)
    found = difftool(*line, "--json").json()
    path = tmp_path / "sampler.onnx"
    model = library.load(tiny_bundle)
    program = dpmpp_2m(model.spec, steps=6)
    assert found == {
        "out": "sampler.onnx",
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        "program": program.name,
        "precision": "fp32",
    }
    np.testing.assert_allclose(draw(path), model.sample(program, n=2, seed=3), rtol=0, atol=1e-4)
    difftool(*line).refused(2, "error: sampler.onnx exists")
    assert difftool(*line, "--force").code == 0


def test_a_repository_for_triton(
    difftool: Command, refuses: Refusal, tiny_bundle: Path, tmp_path: Path
) -> None:
    line = ("compile", tiny_bundle, "--triton", "models")
    found = difftool(*line, "--steps", 6, "--json").json()
    models = {path.name for path in (tmp_path / "models").iterdir() if path.is_dir()}
    assert models == {*found["models"]}
    assert found["program"].startswith("ddpm(steps=6")
    model = library.load(tiny_bundle)
    graph = tmp_path / "models" / found["models"][-1] / "1" / "model.onnx"
    wanted = model.sample(ddpm(model.spec, steps=6), n=2, seed=3)
    np.testing.assert_allclose(draw(graph), wanted, rtol=0, atol=1e-4)
    difftool(*line).refused(2, "error: models exists", "--force")
    assert difftool(*line, "--force").code == 0
    refuses([*line, "--out", "b"], 2, "--triton names the folder itself")
    refuses([*line, "--portable"], 2, "compile needs either --trt, --portable, --onnx or --triton")


def test_export_adds_a_sampler(difftool: Command, tiny_checkpoint: Path, tmp_path: Path) -> None:
    line = ("export", tiny_checkpoint, "--out", "b", "--portable", "--steps", 6, "--json")
    assert "sampler.onnx" in difftool(*line).json()["files"]
    bundle = read_bundle(tmp_path / "b")
    assert bundle.default_program().nfe == 6
    wanted = library.load(tmp_path / "b").sample(n=2, seed=3)
    np.testing.assert_allclose(draw(bundle.file("sampler.onnx")), wanted, rtol=0, atol=1e-4)


def test_a_packed_program(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    """The sampler takes it, and safetensors reads it."""
    from safetensors.numpy import load

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
    model = library.load(tiny_bundle)
    program = ddim(model.spec, steps=5)
    assert name == program.name
    assert difftool("compile", tiny_bundle, "--portable").code == 0
    got = draw(tmp_path / "sampler.onnx", **arrays)
    np.testing.assert_allclose(got, model.sample(program, n=2, seed=3), rtol=0, atol=1e-4)

    read = load(data)
    np.testing.assert_array_equal(read["table"], program.table.astype(np.float32))
    np.testing.assert_array_equal(read["cond"], program.conds.astype(np.float32))
    np.testing.assert_array_equal(read["start"], np.float32([0, 0, 1]))


@pytest.mark.parametrize(
    ("options", "code", "hint"),
    [
        ((), 2, "give one of them"),
        (("--trt", "--portable"), 2, "give one of them"),
        (("--trt", "--steps", "4"), 2, "leave the sampler's options out"),
        (("--portable", "--gpu", "sm89"), 2, "leave them out, or use --trt"),
        (("--portable", "--precision", "int8"), 3, "make it: difftool quantize"),
    ],
)
def test_refused_samplers(
    refuses: Refusal, tiny_bundle: Path, options: tuple[str, ...], code: int, hint: str
) -> None:
    refuses(["compile", tiny_bundle, *options], code, "", hint)
