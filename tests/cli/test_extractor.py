"""difftool extractor: from labelled images to a file that difftool eval takes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difftool.evaluate import open_extractor
from difftool.files import file_sha256
from tests.cli.conftest import Command

SHORT = ("--steps", 40, "--json")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Thirty red and thirty blue images of 10x8 pixels, in a folder for each."""
    rng = np.random.default_rng(0)
    for channel, name in ((0, "red"), (2, "blue")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(30):
            pixels = rng.integers(0, 100, (8, 10, 3), dtype=np.uint8)
            pixels[..., channel] += np.uint8(120)
            Image.fromarray(pixels).save(tmp_path / f"photos/{name}/{index}.png")
    return tmp_path / "photos"


def test_colour_images_are_judged_by_their_own_extractor(
    difftool: Command, photos: Path, tmp_path: Path
) -> None:
    made = difftool("extractor", "--data", photos, "--out", "own.onnx", *SHORT).json()
    digest = file_sha256(tmp_path / "own.onnx")
    assert (made["extractor"], made["extractor_sha256"]) == ("own.onnx", digest)
    assert (made["shape"], made["classes"], made["accuracy"]) == ([3, 8, 10], 2, 1.0)
    assert (made["held_out"], made["trained_on"], made["steps"], made["seed"]) == (6, 54, 40, 0)
    red = np.stack([np.asarray(Image.open(path)) for path in (photos / "red").iterdir()])
    np.savez(tmp_path / "red.npz", samples=red / 127.5 - 1, images=red)
    line = ("eval", "--samples", "red.npz", "--against", photos, "--extractor", "own.onnx")
    found = difftool(*line, "--json").json()
    assert (found["extractor_sha256"], found["preprocess"]) == (digest, "none")
    blue, reddish = found["classes"]["shares"]  # classes are named in the order of the alphabet
    assert (blue, reddish) == (0.0, 1.0)
    same = difftool(*line[:2], "red.npz", "--against", "red.npz", *line[5:], "--json").json()
    assert same["figures"]["frechet_distance"] < 1e-6 < found["figures"]["frechet_distance"]


def test_the_same_seed_gives_the_same_file(difftool: Command, tmp_path: Path) -> None:
    line = ("extractor", "--data", "digits", "--steps", 3, "--json")
    for name in ("a.onnx", "b.onnx"):
        assert difftool(*line, "--out", name).code == 0
    content = (tmp_path / "a.onnx").read_bytes()
    assert content == (tmp_path / "b.onnx").read_bytes()
    for word in (b"site-packages", b".py", b"/work", b"/home", b"/tmp"):
        assert word not in content
    view = open_extractor(tmp_path / "a.onnx").view(np.zeros((3, 8, 8, 1), np.uint8))
    assert view.features.shape == (3, 64)
    assert view.probabilities is not None
    assert view.probabilities.shape == (3, 10)


BAD = {
    "no labels": (("--data", "swiss_roll"), 2, "'swiss_roll' has no labels 'label'"),
    "points": (("--data", "moons"), 2, "are not images"),
    "another column": (("--data", "digits", "--labels", "kind"), 2, "has no labels 'kind'"),
    "taken": (("--data", "digits", "--out", "photos"), 2, "photos is a folder"),
    "one folder": (("--data", "photos/red"), 2, "no labels of two"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_lines_are_one_line(name: str, difftool: Command, photos: Path) -> None:
    line, code, message = BAD[name]
    difftool("extractor", "--out", "own.onnx", *line).refused(code, message)
