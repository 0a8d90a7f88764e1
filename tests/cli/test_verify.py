"""difftool verify: any two ways to run a bundle, a verdict, and a report that stays with it."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from difftool.bundle import read_bundle
from difftool.runtime import shipped
from tests.cli.conftest import Command, tree
from tests.extractors import MakeExtractor
from tests.runtime.test_backends_gpu import cuda_runtime  # noqa: F401
from tests.verify.defects import with_deep_defect, with_nan_at


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "copy")


def test_a_bundle_against_itself_on_another_backend(difftool: Command, tiny_bundle: Path) -> None:
    value = difftool("verify", tiny_bundle, "--backend", "openvino", "--steps", 4, "--json").json()
    assert value["passed"] is True
    assert (value["backend"], value["precision"]) == ("openvino", "fp32")
    assert (value["against"], value["against_precision"]) == ("onnxruntime-cpu", "fp32")
    assert 0 < value["rms_error"] < value["step_error"] < 1e-5
    assert (value["bad_row"], value["reference_bad_row"]) == (None, None)
    assert "bisect" not in value


def test_a_device_is_that_of_the_sides_that_have_one(
    difftool: Command,
    tiny_bundle: Path,
    cuda_runtime: SimpleNamespace,  # noqa: F811
) -> None:
    line = ("verify", tiny_bundle, "--steps", 4, "--device", 1)
    done = difftool(*line, "--backend", "onnxruntime-cuda", "--json")
    value = json.loads(done.out)
    assert value["passed"] is True
    assert (value["backend"], value["against"]) == ("onnxruntime-cuda", "onnxruntime-cpu")
    for name in ("openvino", "numpy"):
        difftool(*line, "--backend", name).refused(2, f"{name} has no device 1")
    assert (value["device"], value["cuda_graphs"]) == ("a fake GPU", "rows")
    assert not {"against_device", "against_cuda_graphs"} & value.keys()
    assert [asked["device_id"] for asked in cuda_runtime.asked] == ["1"]
    line = ("verify", tiny_bundle, "--steps", 4, "--backend", "onnxruntime-cpu")
    text = difftool(*line, "--against", "onnxruntime-cuda").out
    assert "agrees with onnxruntime-cuda fp32 on a fake GPU in 4 steps of ddpm: " in text


def test_a_bundle_of_its_checkpoint(
    difftool: Command, tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    line = ("verify", tiny_bundle, tiny_checkpoint, "--steps", 5, "-n", 3, "--json")
    value = difftool(*line).json()
    assert value["passed"] is True
    assert 0 <= value["step_error"] <= value["step_tolerance"] == 1e-4
    assert 0 <= value["worst_row"] < 5
    assert value["equal"] or value["psnr_db"] >= value["psnr_tolerance_db"]


def test_a_deep_defect_fails_and_is_named(
    difftool: Command, tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    broken, node = with_deep_defect(tiny_bundle, tmp_path / "broken")
    clip = ["--arg", "clip=false", "--json"]
    done = difftool("verify", broken.path, tiny_checkpoint, "--bisect", *clip)
    assert (done.code, done.err) == (1, "")
    value = json.loads(done.out)
    assert value["passed"] is False
    assert value["step_error"] > value["step_tolerance"]
    assert (value["bisect"]["file"], value["bisect"]["node"]) == ("step.onnx", node)


def test_the_first_bad_row_is_named(
    difftool: Command, tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    broken = with_nan_at(tiny_bundle, tmp_path / "broken", 12.0)  # of 19 to 0
    done = difftool("verify", broken.path, tiny_checkpoint, "--json")
    value = json.loads(done.out)
    assert (done.code, value["bad_row"], value["worst_row"]) == (1, 7, 7)
    assert value["step_error"] is None
    done = difftool("verify", broken.path, tiny_checkpoint)
    assert (done.code, done.err) == (1, "")
    assert done.out.startswith("passed             no\n")


def test_what_agrees_is_said_in_a_sentence(difftool: Command, tiny_bundle: Path) -> None:
    line = ("verify", tiny_bundle, "--backend", "numpy", "--steps", 2)
    said = difftool(*line).out
    assert re.fullmatch(
        r"numpy fp32 agrees with onnxruntime-cpu fp32 in 2 steps of ddpm: largest error of a step "
        r"\d\.\de-\d\d, at most 1e-04 is allowed; PSNR \d+\.\d dB, at least 40 is asked for\n",
        said,
    )
    long = difftool(*line, "--verbose").out
    assert long.startswith("passed             yes\n")
    assert long.endswith(said)


def test_a_report_stays_in_the_bundle(difftool: Command, copy: Path) -> None:
    line = ("verify", copy, "--backend", "openvino", "--steps", 4, "--store", "--json")
    value = difftool(*line).json()
    assert value.pop("stored") == ["verify-openvino-fp32.json", "verify-openvino-fp32.png"]
    bundle = read_bundle(copy)
    kept = json.loads(bundle.file("verify-openvino-fp32.json").read_text())
    assert kept.pop("rows")["largest"]
    assert kept == value
    assert bundle.file("verify-openvino-fp32.png").read_bytes().startswith(b"\x89PNG")
    assert difftool(*line).json()["passed"]  # and it can be stored again
    assert difftool("sample", copy, "-n", 1, "--steps", 2, "--out", "x.npz").code == 0


def test_a_shipped_bundle_stays(
    difftool: Command, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "MODELS", copy.parent)
    before = tree(copy)
    for name in ("copy", copy):
        done = difftool("verify", name, "--backend", "openvino", "--store")
        done.refused(2, "error: copy comes with difftool and stays as it is")
    assert tree(copy) == before


def test_a_picture(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    line = ("verify", tiny_bundle, "--backend", "numpy", "--steps", 2, "--picture")
    assert difftool(*line, "errors.svg").code == 0
    assert b"<svg" in (tmp_path / "errors.svg").read_bytes()
    difftool(*line, "errors.svg").refused(2, "errors.svg exists")
    assert difftool(*line, "errors.txt").code == 2


def test_frechet_distance_before_and_after(difftool: Command, points_bundle: Path) -> None:
    line = ("verify", points_bundle, "--backend", "openvino", "--steps", 20)
    value = difftool(*line, "--data", "gaussians", "--draws", 200, "--json").json()["frechet"]
    assert (value["data"], value["n"]) == ("gaussians", 200)
    assert value["before"] == pytest.approx(value["after"], rel=1e-3)
    assert value["before"] > 0.1  # random weights


def test_images_are_seen_by_an_extractor(difftool: Command, tiny_bundle: Path) -> None:
    line = ("verify", tiny_bundle, "--backend", "openvino", "--steps", 2)
    done = difftool(*line, "--data", "digits", "--draws", 10)
    done.refused(2, "the extractor mnist takes images of shape (1, 28, 28), not (1, 8, 8)")


def test_an_encoder_sees_prepared_images(
    difftool: Command,
    tiny_bundle: Path,
    make_extractor: MakeExtractor,
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    np.savez("data.npz", samples=images / 127.5 - 1, images=images)
    line = ("verify", tiny_bundle, "--backend", "openvino", "--steps", 2, "--data", "data.npz")
    seen = ("--draws", 10, "--extractor", make_extractor(axes=("n", 3, 4, 4)))
    difftool(*line, *seen).refused(2, "images of shape (3, 4, 4), not (1, 8, 8)")
    found = difftool(*line, *seen, "--preprocess", "clip", "--json").json()["frechet"]
    assert found["preprocess"] == "clip"
    assert found["before"] == pytest.approx(found["after"], rel=1e-3)


def test_draws_are_counted(difftool: Command, points_bundle: Path) -> None:
    for count in (1, -7):
        difftool("verify", points_bundle, "--draws", count).refused(
            2, "should be greater than or equal to 2"
        )


def test_points_are_not_prepared(difftool: Command, points_bundle: Path) -> None:
    line = ("verify", points_bundle, "--backend", "openvino", "--data", "gaussians")
    difftool(*line, "--preprocess", "clip").refused(2, "points have no extractor")
    said = "--preprocess says how data are prepared"
    difftool("verify", points_bundle, "--preprocess", "clip").refused(2, said, "give --data, too")


def test_torch_is_not_needed_without_a_checkpoint(spawn: Command, tiny_bundle: Path) -> None:
    line = ("verify", tiny_bundle, "--backend", "openvino", "--steps", 2, "--json")
    done = spawn(*line, setup="import sys; sys.modules['torch'] = None")
    assert done.json()["passed"] is True
