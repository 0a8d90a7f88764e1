"""difftool sample with pictures and samples to fill, colour, start from, or go between."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difftool import edits
from difftool.cli.inputs import fill_mask, read_inputs, read_samples
from difftool.diffusion.samplers import ddim
from difftool.errors import ArtefactError
from difftool.runtime import load, to_uint8
from tests.cli.conftest import Command, Refusal
from tests.fixtures import IMAGE_SPEC

RGB = replace(IMAGE_SPEC, shape=(3, 4, 4))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture of 4x4 random colours."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture
def samples(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> Path:
    """Three samples of the tiny bundle in an npz file."""
    assert difftool("sample", tiny_bundle, "-n", 3, "--out", "three.npz").code == 0
    return tmp_path / "three.npz"


def test_inpainting(difftool: Command, tiny_bundle: Path, samples: Path, tmp_path: Path) -> None:
    line = ("sample", tiny_bundle, "--sampler", "ddim", "--steps", 5, "-n", 3, "--seed", 4)
    known_half = ("--known", samples, "--fill", "right")
    record = difftool(*line, *known_half, "--out", "filled.npz", "--json").json()
    assert (record["known"], record["fill"]) == (str(samples), "right")
    with np.load(samples) as file:
        known = file["samples"]
    with np.load(tmp_path / "filled.npz") as file:
        filled = file["samples"]
    np.testing.assert_allclose(filled[..., :4], known[..., :4], atol=1e-5)
    model = load(tiny_bundle)
    mask = np.zeros((1, 8, 8), np.float32)
    mask[..., :4] = 1
    program = ddim(model.spec, steps=5)
    expected = model.sample(program, n=3, seed=4, edit=edits.inpaint(known, mask))
    np.testing.assert_allclose(filled, expected, atol=1e-6)


def test_a_start_from_data(difftool: Command, tiny_bundle: Path, samples: Path) -> None:
    line = ("sample", tiny_bundle, "-n", 3, "--init", samples, "--strength", 0.25)
    record = difftool(*line, "--out", "like.png", "--json").json()
    assert record["program"].startswith("ddpm(steps=5,")
    assert (record["init"], record["strength"]) == (str(samples), 0.25)


def test_interpolation(difftool: Command, tiny_bundle: Path, samples: Path, tmp_path: Path) -> None:
    arguments = ("--between", "0,2", "-n", 4, "--out", "way.npz")
    assert difftool("sample", tiny_bundle, *arguments).code == 0
    with np.load(samples) as ends, np.load(tmp_path / "way.npz") as way:
        np.testing.assert_allclose(way["samples"][0], ends["samples"][0], atol=1e-5)
        np.testing.assert_allclose(way["samples"][3], ends["samples"][2], atol=1e-5)


def test_a_picture_is_a_sample_that_shows_as_the_same_picture(picture: Path) -> None:
    sample = read_samples(picture, RGB)
    assert (sample.dtype, sample.shape) == (np.float32, (3, 4, 4))
    np.testing.assert_array_equal(to_uint8(sample[None], RGB)[0], np.asarray(Image.open(picture)))


def test_a_larger_picture_is_scaled_and_cropped(tmp_path: Path) -> None:
    Image.new("L", (40, 16), 128).save(tmp_path / "grey.png")
    sample = read_samples(tmp_path / "grey.png", RGB)
    np.testing.assert_allclose(sample, 2 * 128 / 255 - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("where", "filled"),
    [
        ("left", np.s_[:, :2]),
        ("right", np.s_[:, 2:]),
        ("top", np.s_[:2]),
        ("bottom", np.s_[2:]),
        ("center", np.s_[1:3, 1:3]),
    ],
)
def test_words_for_parts(where: str, filled: object) -> None:
    expected = np.zeros((4, 4))
    expected[filled] = 1
    np.testing.assert_array_equal(fill_mask(where, RGB), np.broadcast_to(expected, (3, 4, 4)))


def test_the_white_of_a_mask_is_filled(tmp_path: Path) -> None:
    white = np.array([[0, 255, 0, 0]] * 4, np.uint8)
    Image.fromarray(white).save(tmp_path / "mask.png")
    mask = fill_mask(str(tmp_path / "mask.png"), RGB)
    np.testing.assert_array_equal(mask, np.broadcast_to(white / 255, (3, 4, 4)))


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (["--known", "three.npz"], 2, "--known and --fill need each other"),
        (["--strength", "0.3"], 2, "--strength needs --init"),
        (["--known", "three.npz", "--fill", "nowhere"], 2, "is no part and no file"),
        (["--known", "none.png", "--fill", "left"], 3, "there is no none.png"),
        (["--known", "text.png", "--fill", "left"], 3, "cannot be read as a picture"),
        (["--init", "text.npz"], 3, "cannot be read as an array"),
        (["--init", "flat.npy"], 2, "holds an array (4,)"),
        (["--init", "words.npy"], 3, "not numbers"),
        (["--init", "three.npz"], 2, "values for 3 samples, and more are drawn"),
        (["--init", "three.npz", "--strength", "2"], 2, "strength 2.0 is not in 0 .. 1"),
        (["--known", "three.npz", "--fill", "flat.npy"], 2, "holds a mask (4,)"),
        (["--grey", "three.npz"], 2, "needs a model of colour images"),
        (["--between", "0"], 2, "does not name two samples"),
        (["--between", "0,-1"], 2, "does not name two samples"),
        (["--between", "0," + "1" * 5000], 2, "does not name two samples"),
    ],
)
def test_bad_inputs(
    refuses: Refusal, tiny_bundle: Path, samples: Path, line: list[str], code: int, message: str
) -> None:
    for name in ("text.png", "text.npz"):
        samples.with_name(name).write_text("not that")
    np.save(samples.with_name("flat.npy"), np.zeros(4, np.float32))
    np.save(samples.with_name("words.npy"), np.array(["a"]))
    refuses(["sample", tiny_bundle, *line, "--out", "out.png"], code, message)


def test_points_to_fill(difftool: Command, points_bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "point.npy", np.array([1.5, 0.0], np.float32))
    np.save(tmp_path / "mask.npy", np.array([0, 1], np.float32))
    arguments = ("sample", points_bundle, "--known", "point.npy", "-n", 2, "--out", "points.npy")
    difftool(*arguments, "--fill", "left").refused(2, "not pictures")
    assert difftool(*arguments, "--fill", "mask.npy").code == 0
    points = np.load(tmp_path / "points.npy")
    np.testing.assert_allclose(points[:, 0], 1.5, atol=1e-5)
    assert points[0, 1] != points[1, 1]


def test_colourization_keeps_the_grey_of_a_coloured_picture(picture: Path) -> None:
    inputs = read_inputs(RGB, None, None, picture, None, None, None)
    assert inputs.edit is not None
    edited = inputs.edit(np.zeros((1, 3, 4, 4), np.float32), np.arange(1))
    expected = read_samples(picture, RGB).mean(axis=0)
    np.testing.assert_allclose(edited[0], np.stack([expected] * 3), atol=1e-6)


def test_a_picture_of_more_than_8_bits_is_not_cut_off(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 300, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ArtefactError, match="more than 8 bits"):
        read_samples(tmp_path / "deep.png", RGB)
