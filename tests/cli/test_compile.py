"""difftool compile, and export --trt: an engine, or one line that says why there is none."""

import json
from pathlib import Path

import pytest

from difftool.bundle import read_bundle
from difftool.files import sha256_of
from tests.cli.conftest import Command, tree

NO_TENSORRT = "import sys; sys.modules['tensorrt'] = sys.modules['tensorrt_rtx'] = None"
INSTALL = (
    "hint: run: pip install 'difftool[trt-rtx]', or for GPUs of data centres: "
    "pip install --extra-index-url https://pypi.nvidia.com 'difftool[trt]'\n"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFTOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx")


@pytest.mark.usefixtures("rtx")
def test_compile_reports_the_engine_and_the_second_time_has_it(
    difftool: Command, points_bundle: Path, own_cache: Path
) -> None:
    line = ("compile", points_bundle, "--trt", "--gpu", "sm89", "--profile", "1,2,4", "--json")
    done = difftool(*line)
    assert (done.code, done.err) == (0, "")
    value = json.loads(done.out)
    engine = Path(value["engine"])
    assert engine.parent == own_cache
    assert value["built"] is True
    assert value["sha256"] == sha256_of(engine)
    assert value["bytes"] == engine.stat().st_size
    assert value["key"]["gpus"] == ["sm89"]
    assert value["key"]["profile"] == [1, 2, 4]
    assert value["key"]["onnx_sha256"] == sha256_of(points_bundle / "step.onnx")
    again = json.loads(difftool(*line).out)
    assert again == {**value, "built": False}


@pytest.mark.usefixtures("rtx")
def test_compile_writes_a_file_but_not_over_another(
    difftool: Command, points_bundle: Path, tmp_path: Path
) -> None:
    line = ("compile", points_bundle, "--trt", "--gpu", "sm89", "--profile", "1,1,1")
    assert difftool(*line, "--out", "points.engine").code == 0
    assert (tmp_path / "points.engine").read_bytes().startswith(b"vtrt")
    done = difftool(*line, "--out", "points.engine")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: points.engine exists\n")
    assert difftool(*line, "--out", "points.engine", "--force").code == 0


@pytest.mark.usefixtures("rtx")
def test_export_adds_an_engine(difftool: Command, points_checkpoint: Path, tmp_path: Path) -> None:
    done = difftool(
        *("export", points_checkpoint, "--out", "b", "--trt", "--precision", "fp16"),
        *("--gpu", "sm89,sm120", "--profile", "1,2,4", "--json"),
    )
    assert (done.code, done.err) == (0, "")
    value = json.loads(done.out)
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
        (("--gpu", "sm89", "--profile", "4,2,1"), "--profile '4,2,1' is out of order"),
        (("--gpu", "sm75", "--precision", "fp8"), "sm75 has no 8-bit floats"),
        (("--gpu", "sm89", "--precision", "half"), "unknown precision 'half'"),
    ],
)
def test_what_makes_no_engine_is_refused_before_any_work(
    difftool: Command,
    points_bundle: Path,
    points_checkpoint: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    wrong: str,
) -> None:
    lines = [("compile", points_bundle), ("export", points_checkpoint, "--out", "b")]
    for line in lines:
        done = difftool(*line, "--trt", *options)
        assert (done.code, done.out) == (2, "")
        assert wrong in done.err.splitlines()[0]
        assert len(done.err.splitlines()) == 2
    assert tree(tmp_path) == {}


def test_options_of_an_engine_want_one(
    difftool: Command, points_bundle: Path, points_checkpoint: Path
) -> None:
    done = difftool("export", points_checkpoint, "--out", "b", "--precision", "fp16")
    assert (done.code, done.err.splitlines()[1]) == (2, "hint: say --trt, too")
    done = difftool("compile", points_bundle)
    assert (done.code, done.err.splitlines()[1]) == (2, "hint: say --trt or --portable")


def test_without_tensorrt_the_line_to_install_it_is_all_there_is(
    spawn: Command, points_bundle: Path, points_checkpoint: Path, tmp_path: Path
) -> None:
    for line in (("compile", points_bundle), ("export", points_checkpoint, "--out", "b")):
        done = spawn(*line, "--trt", "--gpu", "sm89", setup=NO_TENSORRT)
        assert (done.code, done.out) == (4, "")
        assert done.err == f"error: TensorRT is not installed\n{INSTALL}"
    assert tree(tmp_path) == {}
