"""difftool eval: what it compares, what it prints, and what it refuses."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from difftool.data import toys
from difftool.diffusion.samplers import ddim
from difftool.evaluate.comparison import compare_images, compare_points
from difftool.evaluate.extractor import open_extractor
from difftool.evaluate.sets import read_data
from difftool.files import file_sha256
from difftool.runtime import load, to_uint8
from tests.cli.conftest import WITHOUT_TORCH, Command
from tests.extractors import MakeExtractor
from tests.runtime.test_backends_gpu import cuda_runtime  # noqa: F401

SHORT = ("--sampler", "ddim", "--steps", 2)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Twelve images of 28x28 pixels, as `difftool sample` writes them."""
    images = np.random.default_rng(0).integers(0, 256, (12, 28, 28, 1), dtype=np.uint8)
    path = tmp_path / "digits.npz"
    np.savez(path, samples=images / 127.5 - 1, images=images)
    return path


def test_images_of_a_model_by_their_features(difftool: Command, digits: Path) -> None:
    found = difftool("eval", "--against", digits, "-n", 8, "--seed", 3, *SHORT, "--json").json()
    model = load("ddpm-mnist")
    program = "ddim(steps=2, eta=0.0, clip=True, raw_epsilon=False)"
    asked = {"model": "ddpm-mnist", "sampler": "ddim", "steps": 2, "n": 8, "seed": 3}
    assert {name: found[name] for name in asked} == asked
    assert found["program"] == program
    assert found["weights_sha256"] == model.bundle.manifest.provenance.weights_sha256
    extractor = open_extractor("mnist")
    assert (found["extractor"], found["extractor_sha256"]) == ("mnist", extractor.sha256)
    assert (found["against"], found["against_n"]) == (str(digits), 12)
    samples = model.sample(ddim(model.spec, steps=2), n=8, seed=3)
    with np.load(digits) as file:
        data = extractor.view(file["images"])
    expected = compare_images(extractor.view(to_uint8(samples, model.spec)), data)
    assert expected.classes is not None
    classes = found["classes"]
    assert classes["sure"] == expected.classes.sure
    assert classes["confidence"] == pytest.approx(expected.classes.confidence)
    assert classes["shares"] == expected.classes.shares
    assert found["figures"] == pytest.approx(
        {
            "frechet_distance": expected.frechet_distance,
            "kernel_distance": expected.kernel_distance,
            **expected.manifold._asdict(),
            "manifold_n": 8,
        },
        rel=1e-6,
    )


def test_a_poor_program_is_said_and_judged(difftool: Command, digits: Path) -> None:
    line = ("eval", "--against", digits, "-n", 6, *SHORT)
    done = difftool(*line)
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert done.err.startswith("warning: with so few steps, 2, each divides the noise by ")
    (said,) = difftool(*line, "--json").json()["warnings"]
    assert done.err == f"warning: {said}\n"


def test_points_of_a_model_in_the_plane(difftool: Command, points_bundle: Path) -> None:
    found = difftool("eval", points_bundle, "--against", "moons", "-n", 50, "--json").json()
    samples = load(points_bundle).sample(n=50, seed=0).astype(np.float64)
    expected = compare_points(samples, read_data("moons", (2,)))
    assert found["figures"]["sliced_wasserstein"] == pytest.approx(expected.sliced_wasserstein)
    assert found["figures"]["mmd"] == pytest.approx(expected.mmd)
    assert (found["n"], found["against_n"]) == (50, 5_000)


def test_a_model_runs_on_the_device(
    difftool: Command,
    points_bundle: Path,
    cuda_runtime: SimpleNamespace,  # noqa: F811
) -> None:
    line = ("eval", points_bundle, "--against", "moons", "-n", 5, "--device", 1)
    done = difftool(*line, "--backend", "onnxruntime-cuda")
    assert done.code == 0, done.err
    assert [asked["device_id"] for asked in cuda_runtime.asked] == ["1"]


def test_a_toy_is_at_little_distance_from_itself(difftool: Command, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", samples=toys.points("rings", 0, np.arange(4000)))
    done = difftool("eval", "--samples", "a.npz", "--against", "rings", "--json")
    figures = done.json()["figures"]
    assert figures["sliced_wasserstein"] < 0.15
    assert abs(figures["mmd"]) < 1e-3


def test_samples_of_a_file_are_named_with_their_digest(difftool: Command, digits: Path) -> None:
    done = difftool("eval", "--samples", digits, "--against", digits, "-n", 9, "--json")
    found = done.json()
    assert (found["samples"], found["samples_sha256"]) == (str(digits), file_sha256(digits))
    assert (found["n"], found["seed"], found["sampler"], found["steps"]) == (9, None, None, None)


def test_people_get_an_outline(difftool: Command, digits: Path) -> None:
    done = difftool("eval", "--samples", digits, "--against", digits)
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines() if "  " in line)
    assert lines["extractor_sha256"] == open_extractor("mnist").sha256
    assert lines["precision"] == "1"
    assert "sure" in lines


def test_images_of_another_size_are_scaled(difftool: Command, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for index in range(8):
        noise = np.random.default_rng(index).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"photos/{index}.png")
    done = difftool("eval", "--samples", digits, "--against", "photos", "--json")
    assert done.json()["against_n"] == 8


def test_inception_figures_stand_beside_the_others(
    difftool: Command, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {
        "frechet_inception_distance": 12.5,
        "inception_score_mean": 9.0,
        "inception_score_std": 0.25,
    }
    fake = SimpleNamespace(calculate_metrics=lambda **_: scores)
    monkeypatch.setitem(sys.modules, "torch_fidelity", fake)
    torch.save({"w": torch.zeros(1)}, tmp_path / "w.pth")
    line = ("eval", "--samples", digits, "--against", digits, "--inception", "w.pth", "--json")
    assert difftool(*line[:-2], "absent.pth").err.startswith("error: no weights at absent.pth")
    assert difftool(*line).json()["inception"] == {
        "fid": 12.5,
        "inception_score": 9.0,
        "inception_score_std": 0.25,
        "weights_sha256": file_sha256(tmp_path / "w.pth"),
    }


def test_an_encoder_has_no_classes(
    difftool: Command,
    digits: Path,
    make_extractor: MakeExtractor,
) -> None:
    path = make_extractor(axes=("n", 3, 4, 4))
    line = ("eval", "--samples", digits, "--against", digits, "--extractor", path)
    found = difftool(*line, "--preprocess", "clip", "--json").json()
    assert (found["preprocess"], found["classes"]) == ("clip", None)
    assert found["figures"]["precision"] == 1.0
    said = difftool(*line, "--preprocess", "clip").out
    assert "frechet_distance" in said
    assert "sure" not in said


TWICE = ("--samples", "digits.npz", "--against", "digits.npz")
POINTS = ("--samples", "points.npz", "--against", "moons")
BAD = {
    "no data": (("--samples", "digits.npz"), 2, "Missing option '--against'"),
    "absent data": (("--against", "absent.npz"), 3, "no file at absent.npz"),
    "no npz": (("--against", "text.npz"), 3, "text.npz is not an npz file"),
    "other arrays": (("--against", "other.npz"), 3, "other.npz is not an npz file"),
    "one array": (("--against", "array.npz"), 3, "array.npz is not an npz file"),
    "damaged": (("--against", "damaged.npz"), 3, "damaged.npz is not an npz file"),
    "odd shape": (("--against", "odd.npz"), 3, "neither images nor points"),
    "pickled": (("--against", "pickled.npz"), 3, "pickled.npz is not an npz file"),
    "other shape": (("--against", "small.npz"), 2, "one sample has the shape (28, 28, 1)"),
    "toy": (("--against", "moons"), 2, "one sample has the shape"),
    "absent file": (("--samples", "no.npz", "--against", "digits.npz"), 3, "no file at no.npz"),
    "both": ((*TWICE, "--seed", 0), 2, "--seed and --samples are both given"),
    "model and file": (("ddpm-mnist", *TWICE), 2, "MODEL and --samples are both given"),
    "too many": ((*TWICE, "-n", 13), 2, "digits.npz holds 12 samples, not 13"),
    "too few": ((*TWICE, "-n", 3), 2, "no 5 neighbours"),
    "no samples": (("--against", "digits.npz", "-n", 0), 2, "0 samples"),
    "extractor of other images": (
        ("--samples", "small.npz", "--against", "small.npz"),
        2,
        "the extractor mnist takes images of shape (1, 28, 28), not (1, 8, 8)",
    ),
    "no extractor": ((*TWICE, "--extractor", "text.npz"), 3, "text.npz is not ONNX"),
    "absent extractor": ((*TWICE, "--extractor", "resnet"), 3, "no extractor at resnet"),
    "unknown preprocessing": ((*TWICE, "--preprocess", "magic"), 2, "unknown preprocessing"),
    "preprocessing of points": ((*POINTS, "--preprocess", "clip"), 2, "points have no extractor"),
    "preprocessing of inception": (
        (*TWICE, "--extractor", "inception", "--preprocess", "clip"),
        2,
        "inception prepares images by itself",
    ),
    "extractor of points": ((*POINTS, "--extractor", "text.npz"), 2, "points have no extractor"),
    "images for points": ((*POINTS[:3], "digits"), 2, "digits holds images"),
    "endless points": (
        ("--samples", "endless.npz", "--against", "moons"),
        1,
        "endless.npz holds numbers that are not finite",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name: str, difftool: Command, digits: Path, tmp_path: Path) -> None:
    images = np.zeros((12, 8, 8, 1), np.uint8)
    points = np.zeros((12, 2), np.float32)
    (tmp_path / "text.npz").write_text("not what it says")
    np.savez(tmp_path / "other.npz", weights=points)
    np.savez(tmp_path / "odd.npz", images=np.zeros((3, 4), np.uint8))
    np.savez(tmp_path / "pickled.npz", samples=np.array([{}], dtype=object))
    np.savez(tmp_path / "small.npz", images=images)
    np.savez(tmp_path / "points.npz", samples=points)
    np.savez(tmp_path / "endless.npz", samples=points + np.inf)
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, points)
    np.savez_compressed(tmp_path / "damaged.npz", images=images)
    content = bytearray((tmp_path / "damaged.npz").read_bytes())
    content[60:80] = bytes(20)
    (tmp_path / "damaged.npz").write_bytes(content)
    line, code, message = BAD[name]
    difftool("eval", *line).refused(code, message)


@pytest.mark.parametrize("against", ["points.npz", "moons"])
def test_files_and_toys_need_no_torch(against: str, spawn: Command, tmp_path: Path) -> None:
    np.savez(tmp_path / "points.npz", samples=toys.points("moons", 0, np.arange(20)))
    without = "import sys; sys.modules |= dict.fromkeys(['torch', 'datasets', 'sklearn'])"
    done = spawn("eval", "--samples", "points.npz", "--against", against, setup=without)
    assert (done.code, done.err) == (0, "")
    assert "sliced_wasserstein" in done.out


def test_a_folder_of_images_needs_no_torch(spawn: Command, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for index, image in enumerate(np.load(digits)["images"]):
        Image.fromarray(image[..., 0]).save(tmp_path / f"pictures/{index}.png")
    done = spawn("eval", "--samples", digits, "--against", "pictures", setup=WITHOUT_TORCH)
    assert (done.code, done.err) == (0, "")
    assert "frechet" in done.out
